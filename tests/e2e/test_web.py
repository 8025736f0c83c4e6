"""The middleware in real servers, under real frameworks: leases, refusals, and clients that go."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.harness.client import Client
from e2e.harness.leftovers import nothing_left
from e2e.harness.waiting import eventually
from e2e.harness.web import SERVERS, WebService, environment
from e2e.harness.web_apps import GATE
from support.process import Arbiterd

TESTS = Path(__file__).parent.parent


@pytest.fixture(params=sorted(SERVERS))
def service(request: pytest.FixtureRequest, arbiter: Arbiterd, tmp_path: Path) -> Iterator[WebService]:
    """All applications under one server, which must end well."""
    env = environment(arbiter.grpc, **{GATE: str(tmp_path / "gate")})
    started = WebService(request.param, "e2e.harness.web_apps:app", env=env, cwd=str(TESTS))
    yield started
    code, said = started.stop()
    # uvicorn ends by the signal that told it to.
    assert code in {0, -signal.SIGTERM}, said
    assert "Traceback" not in said, said


async def test_requests_take_their_turns(
    service: WebService, arbiter: Arbiterd, connect: Callable[[Arbiterd], Client], tmp_path: Path
):
    client = connect(arbiter)
    gate = tmp_path / "gate"
    gpu = (await client.gpu()).uuid

    async def queue(length: int, leases: int) -> None:
        async def is_so() -> bool:
            state = await client.snapshot()
            return (state.queue_length, len(state.leases)) == (length, leases)

        await eventually(is_so, f"{leases} leases and {length} who wait")

    for app in ("/plain", "/starlette", "/fastapi"):
        gate.unlink(missing_ok=True)
        first = await service.ask(f"{app}/work")
        await queue(0, 1)
        # Others are served meanwhile, those who do not wait are sent away, and who waits may go.
        assert (await service.get(f"{app}/health")).status == 200
        refused = await service.get(f"{app}/skip")
        assert (refused.status, refused.json["reason"]) == (503, "GPU_BUSY")
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["content-type"] == "application/problem+json"
        impatient = await service.ask(f"{app}/work", method="POST", body=b"audio" * 50_000)
        await queue(1, 1)
        impatient.hang_up()
        await queue(0, 1)
        # So does who talks.
        talk, denied = await service.talk(f"{app}/talk")
        assert denied.status in {403, 503}
        talk.hang_up()
        second = await service.ask(f"{app}/work")
        await queue(1, 1)
        gate.touch()
        for each in (first, second):
            answer = await each.answer()
            assert (answer.status, answer.json) == (200, {"gpu": gpu})
        await queue(0, 0)
        assert (await service.get(f"{app}/skip")).status == 200

        # A stream has its lease until its client goes, a WebSocket until it is closed.
        stream = await service.ask(f"{app}/stream")
        assert (await stream.head()).status == 200
        await queue(0, 1)
        stream.hang_up()
        await queue(0, 0)
        talk, opened = await service.talk(f"{app}/talk")
        assert opened.status == 101
        assert gpu.encode() in await talk.read(len(gpu) + 2)
        await queue(0, 1)
        talk.hang_up()
        await queue(0, 0)
    await nothing_left(client)
