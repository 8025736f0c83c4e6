"""Who comes first: priority, then arrival, and priority rises with waiting."""

import pytest

from core.world import GIB, PATIENT, START, Stream, World, gpus, settings
from gpuarbiter_server.core.fairness import order_key
from gpuarbiter_server.core.model import Sharing, WaitReason
from gpuarbiter_server.core.policy import Policy


def serve_all(world: World, holder: Stream, waiting: list[Stream]) -> list[Stream]:
    """Releases one lease after the other; returns the order of the grants."""
    order = []
    while waiting:
        world.release(holder)
        (holder,) = (stream for stream in waiting if stream.granted)
        order.append(holder)
        waiting = [stream for stream in waiting if stream is not holder]
    return order


def test_first_come_first_served_within_one_priority() -> None:
    world = World()
    holder = world.acquire()
    waiting = [world.acquire(client=f"c{n}") for n in range(5)]
    assert [stream.queued.position for stream in waiting] == [1, 2, 3, 4, 5]
    assert serve_all(world, holder, list(waiting)) == waiting


def test_higher_priority_first() -> None:
    world = World()
    holder = world.acquire()
    low, high, middle = (world.acquire(priority=p) for p in (10, 90, 50))
    assert high.queued.position == 1
    assert serve_all(world, holder, [low, high, middle]) == [high, middle, low]


def test_priority_of_the_policy_stands_in_and_its_limit_lowers() -> None:
    policies = {
        "ASR": Policy(priority=90, max_wait=None, max_hold=0),
        "BATCH": Policy(priority=20, max_priority=30, max_wait=None, max_hold=0),
    }
    world = World(settings_=settings(policies=policies))
    holder = world.acquire("ASR")
    greedy = world.acquire("BATCH", priority=100)
    other = world.acquire("OTHER", priority=31)
    asr = world.acquire("ASR")
    assert serve_all(world, holder, [greedy, other, asr]) == [asr, other, greedy]
    assert greedy.lease.priority == 30
    assert holder.lease.priority == 90


def test_90_and_80_do_not_swap_within_a_wait_of_3_seconds() -> None:
    world = World()
    holder = world.acquire()
    low = world.acquire(priority=80)
    world.advance(3)
    high = world.acquire(priority=90)
    assert serve_all(world, holder, [low, high]) == [high, low]


@pytest.mark.parametrize(("waits", "low_first"), [(9.875, False), (10.0, True), (10.125, True)])
def test_a_level_of_priority_is_worth_one_second_of_waiting(waits: float, low_first: bool) -> None:
    """At the same level the earlier arrival wins."""
    world = World()
    holder = world.acquire()
    low = world.acquire(priority=40)
    world.advance(waits)
    high = world.acquire(priority=50)
    expected = [low, high] if low_first else [high, low]
    assert serve_all(world, holder, [low, high]) == expected


def test_the_bound_of_aging_nobody_passes_after_100_levels_of_waiting() -> None:
    world = World(settings_=settings(aging=0.5))
    holder = world.acquire()
    lowest = world.acquire(priority=0)
    world.advance(50)
    rivals = [world.acquire(priority=100) for _ in range(3)]
    assert serve_all(world, holder, [lowest, *rivals]) == [lowest, *rivals]


def test_without_aging_priority_alone_counts() -> None:
    world = World(settings_=settings(aging=0.0, queue_limit=99))
    holder = world.acquire()
    low = world.acquire(priority=0)
    world.advance(10_000)
    high = world.acquire(priority=1)
    assert serve_all(world, holder, [low, high]) == [high, low]
    assert order_key(7, START, 0.0) == -7


def test_a_position_counts_only_those_ahead_that_share_a_candidate() -> None:
    world = World(gpus(3))
    holders = [world.acquire(candidates=(f"gpu:{n}",)) for n in range(3)]
    a = world.acquire(candidates=("gpu:0",))
    b = world.acquire(candidates=("gpu:1",))
    ab = world.acquire(candidates=("gpu:0", "gpu:1"))
    c = world.acquire(candidates=("gpu:2",))
    anywhere = world.acquire()
    positions = [stream.queued.position for stream in (a, b, ab, c, anywhere)]
    assert positions == [1, 1, 3, 1, 5]
    assert anywhere.queued.queue_length == 3  # the longest queue of its candidates
    assert world.gpu("gpu:2").queue_length == 2
    assert all(holder.held for holder in holders)


def test_a_request_is_bound_to_a_gpu_only_when_it_is_granted() -> None:
    world = World(gpus(2))
    first, second = world.acquire(), world.acquire()
    waiting = world.acquire()
    world.release(second)
    assert waiting.on == second.on
    world.release(first)
    assert world.acquire().on == first.on


def test_the_first_that_lacks_room_holds_back_those_behind_it_on_its_candidates() -> None:
    world = World(gpus(2))
    shared = [world.shared(12 * GIB, candidates=(f"gpu:{n}",)) for n in range(2)]
    large = world.shared(20 * GIB, candidates=("gpu:0",))
    small = world.shared(1 * GIB, candidates=("gpu:0",))
    elsewhere = world.shared(1 * GIB, candidates=("gpu:1",))
    assert large.waiting
    assert small.waiting
    assert small.queued.reason is WaitReason.QUEUE_ORDER
    assert elsewhere.held
    world.release(shared[0])
    assert large.held
    assert small.held


def test_a_small_request_behind_takes_a_gpu_that_nobody_ahead_wants() -> None:
    world = World(gpus(2))
    world.shared(20 * GIB, candidates=("gpu:0",))
    large = world.shared(20 * GIB, candidates=("gpu:0",))
    small = world.shared(1 * GIB)
    assert large.waiting
    assert small.on == ("gpu:1",)


def test_large_requests_get_their_turn_under_an_endless_stream_of_small_ones() -> None:
    """Two GPUs at once, and one for itself: granted as soon as what was there before them is done."""
    world = World(gpus(2), settings(queue_limit=1000))
    early = [world.shared(2 * GIB, client=f"early{n}") for n in range(10)]
    both = world.acquire(client="both", count=2, sharing=Sharing.SHARED, memory=23 * GIB)
    alone = world.acquire(client="alone", sharing=Sharing.EXCLUSIVE)
    late = []
    for stream in early:
        late.append(world.shared(2 * GIB, client="late"))
        world.advance(0.25)
        assert both.waiting
        world.release(stream)
        assert not any(stream.granted for stream in late)
    assert both.held
    late.append(world.shared(1 * GIB, client="late"))
    assert late[-1].waiting
    world.release(both)
    assert alone.held
    # Only now, and on the GPU that is left.
    assert {on for stream in late if stream.held for on in stream.on} == {"gpu:1"}


def test_the_order_is_that_of_the_snapshot() -> None:
    world = World(gpus(2), settings(policy=PATIENT))
    holders = [world.acquire(candidates=(f"gpu:{n}",)) for n in range(2)]
    low = world.acquire(request_id="low", priority=1, candidates=("gpu:0",))
    high = world.acquire(request_id="high", priority=9, candidates=("gpu:1",))
    both = world.acquire(request_id="both", priority=5)
    assert [ticket.request_id for ticket in world.snapshot().queue] == ["high", "both", "low"]
    assert [stream.waiting for stream in (low, high, both)] == [True] * 3
    assert all(holder.held for holder in holders)
