"""The example service under load: every request gets an answer, and nothing is left of those that went."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.harness.client import Client
from e2e.harness.leftovers import nothing_left
from e2e.harness.waiting import eventually
from e2e.harness.web import WebService, environment
from fakes.asgi_server import Exchange, respond
from gpuarbiter import AsyncArbiter, current_lease
from gpuarbiter.asgi import GpuLeaseMiddleware, GpuRoute
from support.process import Arbiterd

EXAMPLES = Path(__file__).parents[2] / "clients/python/examples"
REQUESTS = 300
CLIENTS = 40
SEED = 7
# As many as wait at a GPU, by default.
QUEUE_LIMIT = 8


@pytest.fixture
def service(arbiter: Arbiterd) -> Iterator[WebService]:
    """The example of docs/python-web.md, as it stands."""
    started = WebService("uvicorn", "web_service:app", env=environment(arbiter.grpc), cwd=str(EXAMPLES))
    yield started
    _, said = started.stop()
    assert "Traceback" not in said, said


async def test_everybody_gets_an_answer_and_a_time_to_come_back(
    service: WebService, arbiter: Arbiterd, connect: Callable[[Arbiterd], Client]
):
    client = connect(arbiter)
    left = iter(range(REQUESTS))
    answers: Counter[str] = Counter()

    async def ask_again_and_again() -> None:
        for number in left:
            answer = await service.get("/transcribe", method="POST", body=b"x" * (number * 100))
            if answer.status == 200:
                assert answer.json["text"].startswith(f"{number * 100} bytes, heard on ")
                answers["200"] += 1
            else:
                assert answer.status == 503, answer
                assert int(answer.headers["retry-after"]) >= 1
                answers[answer.json["reason"]] += 1

    await asyncio.gather(*(ask_again_and_again() for _ in range(CLIENTS)))
    assert answers.total() == REQUESTS
    assert answers["200"] >= QUEUE_LIMIT
    assert answers["QUEUE_FULL"] >= CLIENTS - QUEUE_LIMIT
    await nothing_left(client)
    print(f"{REQUESTS} requests of {CLIENTS} clients: {dict(answers)}")

    spoken = await service.get("/speak?text=one+two+three")
    assert (spoken.status, spoken.body) == (200, b"onetwothree")
    words = {"Content-Type": "application/json"}
    repaired = await service.get("/repair", method="POST", body=b'{"text": "yes"}', headers=words)
    assert repaired.json == {"text": "Yes"}


async def test_who_hangs_up_leaves_nothing_behind(
    service: WebService, arbiter: Arbiterd, connect: Callable[[Arbiterd], Client]
):
    client = connect(arbiter)
    assert (await service.get("/health")).json == "well"
    lease = await client.acquire().granted()
    # Some send all that they have to say, some are in the midst of it.
    waiting = [
        await service.ask("/transcribe", method="POST", body=b"x" * 200_000, headers={"Content-Length": "300000"})
        if number % 2
        else await service.ask("/transcribe", method="POST", body=b"x")
        for number in range(QUEUE_LIMIT)
    ]

    async def all_wait() -> bool:
        return (await client.snapshot()).queue_length == QUEUE_LIMIT

    await eventually(all_wait, "for all to wait")
    for each in waiting:
        each.hang_up()

    async def nobody_waits() -> bool:
        return (await client.snapshot()).queue_length == 0

    await eventually(nobody_waits, "for nobody to wait")
    await client.release(lease)
    await nothing_left(client)
    assert (await service.get("/transcribe", method="POST", body=b"x")).status == 200


async def test_nothing_is_left_whenever_somebody_goes(arbiter: Arbiterd, connect: Callable[[Arbiterd], Client]):
    """Clients that hang up and servers that cancel at any moment: before the queue, in it, at the grant, at work."""
    chance = random.Random(SEED)
    ends: Counter[str] = Counter()

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        lease = current_lease()
        lease.check()
        await asyncio.sleep(chance.uniform(0, 0.004))
        await respond(send, more=True)
        await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def one(middleware: GpuLeaseMiddleware) -> None:
        exchange = Exchange(middleware, path=chance.choice(["/work", "/impatient"]))
        await asyncio.sleep(chance.uniform(0, 0.03))
        end = chance.choice(["stays", "hangs up", "is cancelled"])
        if end == "hangs up":
            exchange.hangs_up()
        elif end == "is cancelled":
            exchange.task.cancel()
        try:
            await exchange.over()
        except asyncio.CancelledError:
            assert end == "is cancelled"
        ends[f"{end}: {exchange.status if exchange.sent else 'no answer'}"] += 1
        # Whoever stays is answered.
        assert exchange.sent or end != "stays"

    async def some(middleware: GpuLeaseMiddleware) -> None:
        for _ in range(20):
            await one(middleware)

    async with AsyncArbiter(arbiter.grpc) as library:
        routes = [GpuRoute("WORK", "/work", max_wait="5s"), GpuRoute("WORK", busy_policy="SKIP", max_wait="5ms")]
        cancelling = [GpuRoute("WORK", cancel_on_disconnect=True, max_wait="5s")]
        kinds = [GpuLeaseMiddleware(app, each, arbiter=library) for each in (routes, cancelling)]
        await asyncio.gather(*(some(kinds[number % 2]) for number in range(12)))
        await nothing_left(connect(arbiter))
        assert [task for task in asyncio.all_tasks() if "Inbox" in repr(task.get_coro())] == []
    assert len(ends) >= 4, ends
    print(f"seed {SEED}: {dict(ends)}")
