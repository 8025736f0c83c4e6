"""A line is cut after each byte of a conversation: asked, queued, granted, released, ended.

In the normal run after some of the bytes, others each time; with GPU_ARBITER_SOAK after every one.
"""

import asyncio
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from e2e.harness.client import Client
from e2e.harness.leftovers import doubles, nothing_left
from e2e.harness.lines import LIBRARIES
from fakes.fault_proxy import Fault, FaultProxy
from fakes.polling import async_until
from gpuarbiter import ArbiterUnavailable, LeaseEnded
from support import soak
from support.process import Arbiterd, running

GPUS = 12
# In the normal run: cuts of each kind, over both directions.
CUTS = 60
# Beyond the shortest conversation by so much: each is a little longer or shorter.
SLACK_BYTES = 60
# Of all conversations, those whose client may come back after the grace of a second: a busy machine is no fault.
RARELY = 0.01

# One conversation over a line, with a name and a GPU for it; says how far it got.
Conversation = Callable[[Client, FaultProxy, str, str], Awaitable[str]]


@pytest.fixture(scope="module")
def network() -> Iterator[Arbiterd]:
    settings = (
        f"gpus=sim:{GPUS}x24GiB",
        "cooldown=0s",
        # Long enough for the library, which asks again after a tenth of a second.
        "defaults.disconnect_grace=1s",
        "policies.BARE={disconnect_grace: 100ms}",
        "history.max_events=1000000",
        "shutdown_grace=0s",
        "log_level=warning",
    )
    with tempfile.TemporaryDirectory(prefix="gpu-arbiter-e2e-") as made, running(Path(made), *settings) as arbiter:
        yield arbiter
    assert "Traceback" not in arbiter.output, arbiter.output


@pytest.fixture
async def direct(network: Arbiterd) -> AsyncIterator[Client]:
    client = Client(network.grpc)
    yield client
    await client.close()


async def bare(direct: Client, proxy: FaultProxy, request_id: str, gpu: str) -> str:
    """On the bare contract: what is cut is over."""
    blocker = await direct.acquire("BARE", "in-the-way", candidates=[gpu], max_hold=0).granted()
    client = Client(proxy.address)
    reached = "asked"
    try:
        stream = client.acquire("BARE", candidates=[gpu], max_hold=0, request_id=request_id)
        await stream.waits_for("GPU_BUSY")
        reached = "queued"
        await direct.release(blocker)
        lease = await stream.granted()
        reached = "granted"
        await client.release(lease)
        reached = "released"
        await stream.until("ended")
        await stream.ends()
        reached = "ended"
    except grpc.RpcError:
        pass  # That is how a cut shows.
    finally:
        await client.close()
    await direct.release(blocker)
    return reached


def library(name: str) -> Conversation:
    """With the library: once its request may have arrived, a cut costs it nothing."""

    async def talk(direct: Client, proxy: FaultProxy, request_id: str, gpu: str) -> str:
        blocker = await direct.acquire("BARE", "in-the-way", candidates=[gpu], max_hold=0).granted()
        client = LIBRARIES[name](proxy.address, name)
        queued = threading.Event()
        asking = asyncio.ensure_future(client.acquire(gpu, request_id, lambda _: queued.set()))
        try:
            # It asks again by itself, over a second connection, which would be cut just the same.
            await async_until(
                lambda: queued.is_set() or asking.done() or len(proxy.carried) > 1, f"for an answer to {request_id}"
            )
            # The network is well again, for whoever comes back.
            proxy.become(Fault(), existing=False)
            await direct.release(blocker)
            try:
                lease: Any = await asking
            except ArbiterUnavailable:
                assert not queued.is_set(), f"{request_id} did not go on waiting"
                return "asked"
            except LeaseEnded:
                # It was granted, the cut took the answer, and on a busy machine its client came back after the grace.
                return "too late"
            assert (await client.release(lease)).reason == "RELEASED"
            assert not lease.lost, (request_id, lease.lost_reason)
            return "released"
        finally:
            await client.close()

    return talk


KINDS: dict[str, Conversation] = {"bare": bare} | {name: library(name) for name in LIBRARIES}


async def length(network: Arbiterd, direct: Client, talk: Conversation, name: str) -> tuple[int, int]:
    """Bytes up and down of a conversation that nothing disturbs."""
    with FaultProxy(network.grpc) as proxy:
        assert await talk(direct, proxy, f"{name}-whole", "gpu:0") in {"ended", "released"}
        (carried,) = proxy.carried
        return carried


def cuts(up: int, down: int, seed: int) -> list[Fault]:
    """Every cut, or some of them."""
    every = [
        Fault(reset=reset, **{direction: number})
        for reset in (False, True)
        for direction, most in (("cut_after_up", up), ("cut_after_down", down))
        for number in range(most + SLACK_BYTES)
    ]
    random.Random(seed).shuffle(every)
    return every if soak.wanted() else every[:CUTS]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", KINDS)
async def test_a_cut_after_any_byte_leaves_nothing_and_never_two_leases(
    network: Arbiterd, direct: Client, name: str, capsys: pytest.CaptureFixture[str]
):
    talk, seed = KINDS[name], random.randrange(2**32)
    up, down = await length(network, direct, talk, name)
    waiting = cuts(up, down, seed)
    count, began = len(waiting), time.monotonic()
    reached: Counter[str] = Counter()

    async def lane(gpu: str) -> None:
        """One conversation after another on this GPU; each finds it empty."""
        while waiting:
            fault, request_id = waiting.pop(), f"{name}-{seed}-{len(waiting)}"
            # A proxy for each: gRPC would go on with the sound connection that the last one ended with.
            with FaultProxy(network.grpc) as proxy:
                proxy.become(fault)
                reached[await talk(direct, proxy, request_id, gpu)] += 1
                await nothing_left(direct, gpu)

    async with asyncio.TaskGroup() as group:
        for number in range(GPUS):
            group.create_task(lane(f"gpu:{number}"))
    took = time.monotonic() - began
    with soak.figures(capsys):
        print(
            f"\n{name}: {count} conversations of {up} bytes up and {down} down, each cut after another byte"
            f" (seed {seed}), in {took:.0f} s; they came to: {dict(reached)}"
        )
    assert not doubles(await direct.events())
    # The library fails only where not even the connection came about, which few of the cuts prevent.
    assert reached["asked"] or name in LIBRARIES
    assert reached.total() > reached["asked"], "some were cut later"
    assert reached["too late"] <= reached.total() * RARELY
    await nothing_left(direct)
