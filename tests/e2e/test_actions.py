"""Low utilization acted on: a real arbiter asks a real holder to yield, and tells a webhook and people, once."""

import asyncio
import contextlib
import json
import re
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.harness.client import Client
from e2e.harness.receiver import Receiver
from e2e.harness.waiting import eventually
from fakes.polling import until
from gpuarbiter import AsyncArbiter, AsyncLease, YieldRequest
from gpuarbiter.sim import SimulatedMemory
from support.messages import holder
from support.process import Arbiterd

PAGE = Path(__file__).parents[2] / "docs" / "analysis-actions.md"
SECRET = "made-up-secret-0123456789"
# Runs follow each other within a tenth of a second, and look at half of one.
_QUICK = "interval: 100ms, time_window: 500ms, step: 100ms"
_ACTIONS = "actions: {yield: always, after_runs: 2, hold_down: 1h}"
_SETTINGS = (
    "gpus=sim:2x16GiB",
    "sampler={interval: 20ms, fast_interval: 20ms}",
    "log_levels={gpuarbiter_server.analysis.report: error}",
)


def get(arbiter: Arbiterd, path: str) -> str:
    with urllib.request.urlopen(f"http://{arbiter.http}{path}", timeout=20) as answer:
        found: str = answer.read().decode()
    return found


def counted(arbiter: Arbiterd, action: str, result: str) -> int:
    """Of gpu_arbiter_analysis_actions_total."""
    line = f'gpu_arbiter_analysis_actions_total{{action="{action}",result="{result}"}} '
    (found,) = [int(each.removeprefix(line)) for each in get(arbiter, "/metrics").splitlines() if each.startswith(line)]
    return found


def runs(arbiter: Arbiterd) -> int:
    found = re.search(r'analysis_runs_total\{result="ok"\} (\d+)', get(arbiter, "/metrics"))
    assert found is not None
    return int(found[1])


async def several_more_runs(arbiter: Arbiterd) -> None:
    before = await asyncio.to_thread(runs, arbiter)

    async def passed() -> bool:
        return await asyncio.to_thread(runs, arbiter) >= before + 5

    await eventually(passed, "five more runs of the analysis")


def letters(folder: Path) -> list[dict[str, Any]]:
    file = folder / "state" / "gpu-arbiter" / "dead-letters.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@contextlib.asynccontextmanager
async def idling(arbiter: Arbiterd, folder: Path) -> AsyncIterator[tuple[AsyncLease, list[YieldRequest]]]:
    """A holder with the client library that has a model on gpu:1, and does nothing."""
    asked: list[YieldRequest] = []
    # First the memory: however slow the machine is, no window of the lease is without it.
    with SimulatedMemory("8GiB", "1", utilization_ratio=0.0, folder=folder / "sim"):
        async with (
            AsyncArbiter(arbiter.grpc, client_id="trainer") as client,
            client.lease("LLM", gpus=["gpu:1"], max_hold=0, on_yield=lambda _, request: asked.append(request)) as lease,
        ):
            yield lease, asked


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


async def test_a_holder_is_asked_once_and_goes_on_a_webhook_and_people_are_told_once(
    arbiterd: Callable[..., Arbiterd], connect: Callable[[Arbiterd], Client], folder: Path, receiver: Receiver
):
    control = f"control: {{enabled: true, url: 'http://{receiver.address}/gpus?token=abc', attempts: 2}}"
    arbiter = arbiterd(
        *_SETTINGS,
        "log_level=debug",
        f"analysis={{{_QUICK}, {_ACTIONS}, {control}}}",
        more={
            "GPU_ARBITER_CONTROL_SECRET": SECRET,
            "GPU_ARBITER_NOTIFY_URLS": f"json://user:hidden@{receiver.address}/people",
        },
    )
    async with idling(arbiter, folder) as (lease, asked):
        await eventually(lambda: _true(len(receiver.posted) >= 2 and asked), "everybody to be told")
        await several_more_runs(arbiter)
        assert not lease.lost
        snapshot = await connect(arbiter).snapshot()
        assert [each.lease_id for each in snapshot.leases] == [lease.lease_id]
        (request,) = asked
        assert (request.reason, request.grace) == ("IDLE", None)
        assert "8.0 GiB of memory have been held" in request.detail
        (event,) = await connect(arbiter).events("YIELD_REQUESTED", lease_id=lease.lease_id)
        assert event.detail == f"IDLE: {request.detail}"
    told = {each.path: each for each in receiver.posted}
    assert sorted(each.path for each in receiver.posted) == ["/gpus?token=abc", "/people"]
    posted = told["/gpus?token=abc"]
    body = posted.body
    assert body == {
        "delivery_id": posted.headers["X-GPU-Arbiter-Delivery"],
        "gpu_id": "gpu:1",
        "pod": "",
        "namespace": "",
        "hostname": "test-node",
        "score": body["score"],
        "status": "low",
        "timestamp": body["timestamp"],
        "lease": lease.lease_id,
        "client_id": "trainer",
    }
    assert 10 < body["score"] < 20
    verify(posted.raw, posted.headers)
    message = told["/people"].body
    assert message["title"] == "GpuArbiter: GPUs that are held and hardly used: 1"
    assert message["message"].startswith("gpu:1 on test-node (")
    for action in ("yield", "webhook", "notification"):
        assert [await asyncio.to_thread(counted, arbiter, action, each) for each in ("ok", "failed", "dry_run")] == [
            1,
            0,
            0,
        ]
    root = await asyncio.to_thread(get, arbiter, "/")
    assert json.loads(root)["features"]["control_api"] is True
    metrics = await asyncio.to_thread(get, arbiter, "/metrics")
    assert 'gpu_arbiter_yield_requests_total{gpu="gpu:1",task="other",reason="idle"} 1' in metrics.splitlines()
    shown = json.loads(await asyncio.to_thread(get, arbiter, "/config"))
    assert shown["control"]["url"] == f"http://{receiver.address}/…"
    arbiter.stop()
    for secret in (SECRET, "hidden", "token=abc"):
        assert secret not in arbiter.output
        assert secret not in json.dumps(shown)
    assert letters(folder) == []


def verify(raw: bytes, headers: Any) -> None:
    """As the page says to."""
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    space: dict[str, Any] = {}
    exec(example, space)
    check = space["is_genuine"]
    assert check(SECRET, headers, raw)
    assert not check("another", headers, raw)
    assert not check(SECRET, headers, raw + b" ")
    old = {**headers, "X-GPU-Arbiter-Timestamp": str(int(time.time()) - 3600)}
    assert not check(SECRET, old, raw)
    assert not check(SECRET, {}, raw)


async def _true(found: object) -> bool:
    return bool(found)


async def test_a_dry_run_does_none_of_it_and_says_what_it_would_do(
    arbiterd: Callable[..., Arbiterd], folder: Path, receiver: Receiver
):
    control = f"control: {{enabled: true, url: 'http://{receiver.address}/gpus'}}"
    actions = _ACTIONS.replace("{", "{dry_run: true, ")
    arbiter = arbiterd(
        *_SETTINGS,
        f"analysis={{{_QUICK}, {actions}, {control}}}",
        more={"GPU_ARBITER_NOTIFY_URLS": f"json://{receiver.address}/people"},
    )
    async with idling(arbiter, folder) as (_, asked):
        await asyncio.to_thread(arbiter.wait_for, r"dry run: would ask the holder of lease \S+ to yield: gpu:1 \(")
        await asyncio.to_thread(arbiter.wait_for, r"dry run: would tell the control webhook of gpu:1 \(")
        await asyncio.to_thread(arbiter.wait_for, "dry run: would notify of 1 GPU")
        await several_more_runs(arbiter)
        assert (asked, receiver.posted) == ([], [])
        for action in ("yield", "webhook", "notification"):
            assert await asyncio.to_thread(counted, arbiter, action, "dry_run") == 1


async def test_a_holder_is_asked_only_while_somebody_waits_if_so_configured(
    arbiterd: Callable[..., Arbiterd], connect: Callable[[Arbiterd], Client], folder: Path
):
    arbiter = arbiterd(*_SETTINGS, f"analysis={{{_QUICK}, actions: {{yield: when_waiting, after_runs: 1}}}}")
    async with idling(arbiter, folder) as (_, asked):
        await several_more_runs(arbiter)
        assert asked == []
        waiting = connect(arbiter).acquire("LLM", holder("next"), candidates=["gpu:1"])
        await waiting.waits_for("GPU_BUSY")
        await eventually(lambda: _true(asked), "the holder to be asked for who waits")
        assert asked[0].reason == "IDLE"
    await waiting.granted()
    waiting.cancel()


async def test_a_receiver_that_fails_twice_is_told_once(arbiterd: Callable[..., Arbiterd], folder: Path):
    with Receiver(500, 503) as receiver:
        control = f"control: {{enabled: true, url: 'http://{receiver.address}/'}}"
        arbiter = arbiterd(*_SETTINGS, f"analysis={{{_QUICK}, actions: {{after_runs: 1}}, {control}}}")
        async with idling(arbiter, folder):
            await asyncio.to_thread(arbiter.wait_for, "the control webhook took")
        assert len({each.body["delivery_id"] for each in receiver.posted}) == 1
        assert len(receiver.posted) == 3
        # Each attempt has its own time, and no signature where there is no secret.
        assert not any("X-GPU-Arbiter-Signature" in each.headers for each in receiver.posted)
        assert letters(folder) == []


async def test_a_receiver_that_never_answers_costs_a_dead_letter_and_no_grant(
    arbiterd: Callable[..., Arbiterd], connect: Callable[[Arbiterd], Client], folder: Path
):
    with Receiver(silent=True) as receiver:
        control = f"control: {{enabled: true, url: 'http://{receiver.address}/', timeout: 200ms, attempts: 2}}"
        arbiter = arbiterd(
            *_SETTINGS,
            f"analysis={{{_QUICK}, actions: {{after_runs: 1}}, {control}, notify: {{timeout: 200ms}}}}",
            more={"GPU_ARBITER_NOTIFY_URLS": f"json://{receiver.address}/ nonsense"},
        )
        await asyncio.to_thread(arbiter.wait_for, "notifications: address 2 is none that apprise knows")
        async with idling(arbiter, folder):
            await eventually(lambda: _true(receiver.posted), "the receiver to be told")
            client = connect(arbiter)
            for _ in range(20):
                held = client.acquire("ASR", holder("other"), candidates=["gpu:0"])
                await client.release(await held.granted())
            await asyncio.to_thread(arbiter.wait_for, "the control webhook did not take")
            await asyncio.to_thread(until, lambda: letters(folder), "the dead letter to be written")
        (letter,) = letters(folder)
        assert (letter["reason"], letter["attempts"]) == ("no answer within 0.2 s", 2)
        assert letter["body"]["gpu_id"] == "gpu:1"
        assert await asyncio.to_thread(counted, arbiter, "webhook", "failed") == 1


async def test_a_stop_during_a_delivery_puts_it_aside(arbiterd: Callable[..., Arbiterd], folder: Path):
    with Receiver(silent=True) as receiver:
        control = f"control: {{enabled: true, url: 'http://{receiver.address}/', timeout: 1h}}"
        arbiter = arbiterd(
            *_SETTINGS,
            f"analysis={{{_QUICK}, actions: {{after_runs: 1}}, {control}}}",
            more={"GPU_ARBITER_NOTIFY_URLS": f"json://{receiver.address}/?rto=3600"},
        )
        async with idling(arbiter, folder):
            await eventually(lambda: _true(len(receiver.posted) == 2), "both to be told")
            assert await asyncio.to_thread(arbiter.stop) == 0
    (letter,) = letters(folder)
    assert letter["reason"] == "the arbiter stopped"


async def test_a_secret_that_cannot_be_read_keeps_it_from_starting(launch: Callable[..., Arbiterd], folder: Path):
    control = f"control: {{enabled: true, url: 'http://127.0.0.1:9/', secret_file: {folder}/missing}}"
    arbiter = launch(f"analysis={{{control}}}")
    assert await asyncio.to_thread(arbiter.wait) == 1
    assert "missing cannot be read: No such file or directory" in arbiter.output
    assert "Traceback" not in arbiter.output
