"""The order of the queue: nothing that came later starves what came earlier, and what is gated is in nobody's way."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from e2e.harness.client import Client
from e2e.harness.waiting import eventually
from gpuarbiter.v1 import admin_pb2
from support.messages import GIB
from support.process import Arbiterd

Start = Callable[..., Arbiterd]
Connect = Callable[[Arbiterd], Client]

SMALL_CLIENTS = 8
HOLD_SECONDS = 0.03
# How many large requests are made, one after another, until one of them has seen others come.
AT_LEAST, AT_MOST = 3, 60


@asynccontextmanager
async def small_requests(client: Client) -> AsyncIterator[None]:
    """An endless stream of shared leases: there is never a moment without one on each GPU."""
    stop = asyncio.Event()

    async def one(number: int) -> None:
        while not stop.is_set():
            lease = await client.acquire("SMALL", client=f"small-{number}", memory=2 * GIB, shared=True).granted()
            await asyncio.sleep(HOLD_SECONDS)  # the work
            await client.release(lease)

    async def flowing() -> bool:
        leases = (await client.snapshot()).leases
        return {gpu.key for lease in leases for gpu in lease.gpus} == {"gpu:0", "gpu:1"}

    async with asyncio.TaskGroup() as group:
        for number in range(SMALL_CLIENTS):
            group.create_task(one(number))
        await eventually(flowing, "small leases on both GPUs")
        yield
        stop.set()


@pytest.mark.parametrize(
    "wishes",
    [
        {"count": 2, "memory": 20 * GIB, "shared": True},
        {"count": 2},
        {"count": 1},
        {"count": 1, "memory": 20 * GIB, "shared": True, "candidates": ["gpu:1"]},
    ],
    ids=["two GPUs, shared", "two GPUs, exclusive", "one GPU, exclusive", "one certain GPU, nearly whole"],
)
async def test_a_large_request_is_granted_within_its_turn_under_endless_small_ones(
    arbiterd: Start, connect: Connect, wishes: dict[str, Any]
):
    client = connect(arbiterd("gpus=sim:2x24GiB", "queue_limit=64", "defaults.max_hold=0s"))
    candidates = set(wishes.get("candidates", ("gpu:0", "gpu:1")))
    came_later: list[admin_pb2.ListEventsResponse] = []
    async with small_requests(client):
        for number in range(AT_MOST):
            name = f"large-{number}"
            await client.release(await client.acquire("LARGE", client="large", request_id=name, **wishes).granted())
            came_later += later_than(name, await client.events())
            if number >= AT_LEAST and came_later:
                break
    # It was a stream: requests came on while the large ones waited.
    assert came_later
    # And each had its turn: whoever came after it was not granted a GPU that it may run on.
    grants = [event for event in came_later if event.type == admin_pb2.EVENT_TYPE_GRANTED]
    assert not [grant for grant in grants if not candidates.isdisjoint(grant.gpus)]


def later_than(name: str, events: list[admin_pb2.ListEventsResponse]) -> list[admin_pb2.ListEventsResponse]:
    """What happened, while a request waited, to requests that were made after it."""
    queued, granted = [event for event in events if event.request_id == name][:2]
    if queued.type == admin_pb2.EVENT_TYPE_GRANTED:
        return []  # at once: the GPUs were free for a moment
    assert (queued.type, granted.type) == (admin_pb2.EVENT_TYPE_QUEUED, admin_pb2.EVENT_TYPE_GRANTED)
    asked_before = {event.request_id for event in events if event.sequence < queued.sequence}
    between = [event for event in events if queued.sequence < event.sequence < granted.sequence]
    return [event for event in between if event.request_id not in asked_before]


async def test_a_ticket_behind_its_sequence_holds_nobody_back(arbiter: Arbiterd, connect: Connect):
    client = connect(arbiter)
    first = await client.acquire(memory=GIB, shared=True, sequence=("session", 0)).granted()
    # Exclusive: were it in line, it would keep everybody behind it off the GPU.
    second = client.acquire(sequence=("session", 1))
    await second.waits_for("SEQUENCE")
    bystander = await client.acquire(client="bystander", memory=GIB, shared=True).granted()
    await client.release(bystander)
    await client.release(first)
    await second.granted()


async def test_utterances_come_in_order_whatever_order_they_were_asked_in(arbiter: Arbiterd, connect: Connect):
    client = connect(arbiter)
    held = await client.acquire(client="other").granted()
    streams = {}
    for index in (2, 0, 1):
        streams[index] = client.acquire(sequence=("session", index))
        await streams[index].next("queued")
    await client.release(held)
    for index in (0, 1, 2):
        await client.release(await streams[index].granted())


async def test_a_task_type_at_its_limit_holds_nobody_back(arbiterd: Start, connect: Connect):
    client = connect(arbiterd("policies.LIMITED.max_concurrent_leases=1"))
    first = await client.acquire("LIMITED", memory=GIB, shared=True).granted()
    second = client.acquire("LIMITED")
    await second.waits_for("CONCURRENCY_LIMIT")
    bystander = await client.acquire("OTHER", memory=GIB, shared=True).granted()
    await client.release(bystander)
    await client.release(first)
    await second.granted()


async def test_higher_priority_first_then_first_come_first_served(arbiter: Arbiterd, connect: Connect):
    client = connect(arbiter)
    held = await client.acquire().granted()
    streams = {}
    for name, priority in (("low", 20), ("first", 50), ("second", 50), ("high", 90)):
        streams[name] = client.acquire(client=name, priority=priority)
        await streams[name].next("queued")
    queue = (await client.snapshot()).queue
    assert [ticket.holder.client_id for ticket in queue] == ["high", "first", "second", "low"]
    for name in ("high", "first", "second", "low"):
        await client.release(held)
        held = await streams[name].granted()
