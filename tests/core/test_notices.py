"""What waiting clients are told, and how often."""

import itertools
from dataclasses import replace

from core.world import GIB, PATIENT, Stream, World, gpus, settings
from gpuarbiter_server.core import effects as fx
from gpuarbiter_server.core.model import EventType, WaitReason

CROWD = settings(queue_limit=1000)


def told(stream: Stream) -> list[fx.Queued]:
    return stream.of(fx.Queued)


def test_at_once_when_the_request_has_to_wait() -> None:
    world = World()
    holder = world.acquire("LLM", "llama")
    world.advance(3)
    waiting = world.acquire(request_id="r")
    (queued,) = told(waiting)
    assert queued == fx.Queued(
        waiting.call,
        "r",
        position=1,
        queue_length=1,
        reason=WaitReason.GPU_BUSY,
        estimated_wait=None,
        detail="a lease is in the way (gpu:0: LLM of llama, for 3.0 s)",
        blockers=queued.blockers,
    )
    (blocker,) = queued.blockers
    assert (blocker.lease_id, blocker.held) == (holder.lease_id, 3.0)
    assert world.recorded(EventType.QUEUED)[0].detail == "a lease is in the way"


def test_not_at_all_when_it_does_not() -> None:
    assert not told(World().acquire())


def test_every_ten_seconds_when_nothing_changes() -> None:
    world = World()
    world.acquire()
    waiting = world.acquire()
    world.advance(9.875)
    assert len(told(waiting)) == 1
    world.advance(0.125)
    assert len(told(waiting)) == 2
    assert told(waiting)[1].blockers[0].held == 10.0
    world.advance(30)
    assert len(told(waiting)) == 5


def test_when_its_position_changes() -> None:
    world = World()
    world.acquire()
    first, second = world.acquire(), world.acquire()
    world.advance(1)
    world.cancel(first)
    world.tick()
    assert [queued.position for queued in told(second)] == [2, 1]


def test_when_its_reason_changes() -> None:
    world = World()
    world.acquire()
    waiting = world.acquire()
    world.advance(1)
    world.drain()
    world.tick()
    assert [queued.reason for queued in told(waiting)] == [WaitReason.GPU_BUSY, WaitReason.DRAINING]


def test_at_most_four_times_a_second() -> None:
    world = World(settings_=CROWD)
    world.acquire()
    waiting = world.acquire(priority=0)
    begun = world.now
    times = []
    for n in range(40):
        world.acquire(client=f"c{n}", priority=100 - n) if n % 2 else world.drain() if n % 4 else world.resume()
        before = len(told(waiting))
        world.advance(0.0625)
        times += [world.now] * (len(told(waiting)) - before)
    assert world.now - begun == 2.5
    assert 5 <= len(times) <= 10
    assert all(later - earlier >= 0.25 for earlier, later in itertools.pairwise(times))


def test_a_change_right_after_a_notice_is_told_a_quarter_of_a_second_later() -> None:
    world = World()
    world.acquire()
    first, second = world.acquire(), world.acquire()
    world.advance(0.125)
    world.cancel(first)
    world.advance(0.0625)
    assert len(told(second)) == 1
    world.advance(0.0625)
    assert told(second)[-1].position == 1


def test_those_who_arrive_between_two_notices_are_told_later() -> None:
    world = World()
    world.acquire()
    first = world.acquire()
    world.advance(0.125)
    world.acquire(client="b")  # news are due at 0.25 now
    late = world.acquire(client="c")
    world.cancel(first)
    world.advance(0.125)
    assert [queued.position for queued in told(late)] == [3]
    world.advance(0.25)
    assert [queued.position for queued in told(late)] == [3, 2]


def test_positions_beyond_16_are_not_followed() -> None:
    world = World(settings_=CROWD)
    world.acquire()
    waiting = [world.acquire(client=f"c{n}") for n in range(20)]
    world.advance(1)
    world.cancel(waiting[0])
    world.tick()
    assert len(told(waiting[19])) == 1  # from 20 to 19
    assert [queued.position for queued in told(waiting[16])] == [17, 16]
    world.advance(10)
    assert told(waiting[19])[-1].position == 19


def test_changes_far_back_are_not_looked_for() -> None:
    world = World(settings_=CROWD)
    world.acquire()
    waiting = [world.acquire(client=f"c{n}") for n in range(260)]
    world.advance(1)
    world.drain()
    world.tick()
    assert [len(told(stream)) for stream in (waiting[255], waiting[256])] == [2, 1]
    world.advance(9)
    assert told(waiting[256])[-1].reason is WaitReason.DRAINING


def test_the_absent_are_told_nothing() -> None:
    world = World()
    world.acquire()
    absent = world.acquire(request_id="r", ttl=60)
    world.hang_up(absent)
    world.drain()
    world.advance(30)
    assert len(told(absent)) == 1


def test_at_most_eight_blockers_the_oldest_first() -> None:
    world = World(gpus(2))
    leases = [world.shared(2 * GIB) for _ in range(12)]
    blockers = world.acquire(count=2).queued.blockers
    assert [blocker.lease_id for blocker in blockers] == [lease.lease_id for lease in leases[:8]]


# -- estimates --


def test_an_estimate_needs_something_to_guess_from() -> None:
    world = World()
    world.acquire()
    assert world.acquire().queued.estimated_wait is None


def test_an_estimate_is_what_is_left_of_a_typical_hold_and_one_for_each_turn_before() -> None:
    world = World()
    for hold in (4.0, 6.0, 8.0):
        lease = world.acquire()
        world.advance(hold)
        world.release(lease)
    world.acquire()
    world.advance(2)
    estimates = [world.acquire().queued.estimated_wait for _ in range(3)]
    assert estimates == [4.0, 10.0, 16.0]
    world.advance(20)
    assert world.acquire().queued.estimated_wait == 18.0  # overdue already


def test_several_gpus_serve_several_turns_at_once() -> None:
    world = World(gpus(2))
    for n in range(2):
        lease = world.acquire(candidates=(f"gpu:{n}",))
        world.advance(5)
        world.release(lease)
    world.acquire(count=2)
    estimates = [world.acquire().queued.estimated_wait for _ in range(4)]
    assert estimates == [5.0, 5.0, 10.0, 10.0]
    assert world.acquire(count=2).queued.estimated_wait == 25.0


def test_an_estimate_without_a_lease_in_the_way() -> None:
    world = World()
    lease = world.acquire()
    world.advance(5)
    world.release(lease)
    world.drain()
    assert world.acquire().queued.estimated_wait == 0.0


def test_limits_and_sequences_have_words_of_their_own() -> None:
    world = World(gpus(2), settings(policies={"ONE": replace(PATIENT, max_concurrent_leases=1)}))
    world.acquire("ONE", sequence=("talk", 0))
    limited, later = world.acquire("ONE"), world.acquire("ONE", sequence=("talk", 1))
    assert "as many leases as it may" in limited.queued.detail
    assert "an earlier index of its sequence" in later.queued.detail
