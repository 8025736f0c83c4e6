"""How many may wait: for a GPU, and of one client."""

from core.world import World, gpus, settings
from gpuarbiter_server.core import effects as fx
from gpuarbiter_server.core.errors import ErrorReason
from gpuarbiter_server.core.model import EventType


def full(count: int = 1, limit: int = 2) -> World:
    world = World(gpus(count), settings(queue_limit=limit))
    for n in range(count):
        world.acquire("LLM", "llama", candidates=(f"gpu:{n}",))
    return world


def test_the_queue_of_a_gpu_has_a_limit() -> None:
    world = full()
    waiting = [world.acquire() for _ in range(2)]
    world.advance(1)
    refused = world.acquire(request_id="r")
    assert refused.error.reason is ErrorReason.QUEUE_FULL
    assert refused.error.retry_after == 1.0
    assert refused.error.metadata == {
        "wait_reason": "GPU_BUSY",
        "holder": "llama",
        "holder_task_type": "LLM",
        "holder_gpu": "gpu:0",
        "held_seconds": "1.000",
        "queue_limit": "2",
        "queue_length": "2",
    }
    assert "at its limit of 2 waiting requests" in refused.error.message
    assert not refused.of(fx.Queued)
    assert world.recorded(EventType.FAILED)[-1].outcome == "queue_full"
    assert all(stream.waiting for stream in waiting)
    # After an error it starts anew.
    world.cancel(waiting[0])
    assert world.acquire(request_id="r").queued.position == 2


def test_what_can_be_granted_at_once_needs_no_place() -> None:
    world = World(gpus(2), settings(queue_limit=0))
    assert world.acquire().held
    assert world.acquire().held
    assert world.acquire().error.reason is ErrorReason.QUEUE_FULL


def test_a_ticket_counts_at_each_of_its_candidates() -> None:
    world = full(2)
    world.acquire()
    world.acquire()
    assert [gpu.queue_length for gpu in world.snapshot().gpus] == [2, 2]
    assert world.acquire(candidates=("gpu:1",)).error.reason is ErrorReason.QUEUE_FULL


def test_one_candidate_below_its_limit_is_enough_for_one_gpu_and_not_for_two() -> None:
    world = full(2)
    for _ in range(2):
        world.acquire(candidates=("gpu:0",))
    assert world.acquire(count=2).error.reason is ErrorReason.QUEUE_FULL
    assert world.acquire().waiting
    assert [gpu.queue_length for gpu in world.snapshot().gpus] == [3, 1]


def test_a_higher_priority_displaces_nobody() -> None:
    world = full()
    waiting = [world.acquire(priority=0) for _ in range(2)]
    assert world.acquire(priority=100).error.reason is ErrorReason.QUEUE_FULL
    assert all(stream.waiting for stream in waiting)


def test_a_lowered_limit_evicts_nobody() -> None:
    world = full(limit=3)
    waiting = [world.acquire() for _ in range(3)]
    world.configure(queue_limit=1)
    assert all(stream.waiting for stream in waiting)
    assert world.acquire().error.metadata["queue_limit"] == "1"
    for stream in waiting[:2]:
        world.cancel(stream)
    assert world.acquire().error.reason is ErrorReason.QUEUE_FULL
    world.cancel(waiting[2])
    assert world.acquire().waiting


def test_absent_requests_keep_their_place() -> None:
    world = full(limit=1)
    absent = world.acquire(request_id="r")
    world.hang_up(absent)
    assert world.acquire().error.reason is ErrorReason.QUEUE_FULL
    world.advance(5)
    assert world.acquire().waiting


def test_who_joins_keeps_its_place_in_a_full_queue() -> None:
    world = full(limit=1)
    first = world.acquire(request_id="r")
    assert world.again(first).waiting


def test_a_client_has_a_limit_of_waiting_requests() -> None:
    world = World(settings_=settings(waiting_per_client=2))
    world.acquire(client="greedy")
    waiting = [world.acquire(client="greedy") for _ in range(2)]
    refused = world.acquire(client="greedy")
    assert refused.error.reason is ErrorReason.CLIENT_LIMIT
    assert refused.error.metadata == {"limit": "2", "of": "waiting"}
    assert refused.error.retry_after == 1.0
    assert world.acquire(client="modest").waiting
    assert world.acquire(client="greedy", principal="other").waiting
    world.cancel(waiting[0])
    assert world.acquire(client="greedy").waiting


def test_a_client_has_a_limit_of_leases() -> None:
    world = World(gpus(3), settings(leases_per_client=2))
    leases = [world.acquire(client="greedy") for _ in range(2)]
    refused = world.acquire(client="greedy")
    assert refused.error.reason is ErrorReason.CLIENT_LIMIT
    assert refused.error.metadata == {"limit": "2", "of": "leases"}
    assert world.acquire(client="modest").held
    world.release(leases[0])
    assert world.acquire(client="greedy").held


def test_no_limits() -> None:
    world = World(gpus(1), settings(leases_per_client=0, waiting_per_client=0, queue_limit=2000))
    world.acquire()
    assert all(world.acquire().waiting for _ in range(1100))
    assert world.snapshot().queue_length == 1100
    assert len(world.snapshot().queue) == 100
