"""What becomes of a request or lease whose stream breaks, and of a grant that never arrived."""

from dataclasses import replace

import pytest

from core.world import GIB, PATIENT, World, gpus, pid, settings
from gpuarbiter_server.core import events as ev
from gpuarbiter_server.core.errors import ArbiterError, ErrorReason
from gpuarbiter_server.core.model import BusyPolicy, EndReason, EventType, LeaseState, Sharing, WaitReason

AT_ONCE = replace(PATIENT, disconnect_grace=0.0)


# -- waiting --


def test_an_unnamed_request_goes_with_its_stream() -> None:
    world = World()
    world.acquire()
    waiting = world.acquire()
    world.hang_up(waiting)
    assert world.snapshot().queue_length == 0
    assert world.recorded(EventType.FAILED)[-1].outcome == "cancelled"


def test_without_a_disconnect_grace_a_named_one_goes_too() -> None:
    world = World(settings_=settings(AT_ONCE))
    world.acquire()
    world.hang_up(world.acquire(client="a", request_id="r"))
    assert world.snapshot().queue_length == 0


@pytest.mark.parametrize(("ttl", "patience"), [(0.0, 5.0), (60.0, 60.0)])
def test_a_named_request_waits_to_be_joined_for_its_grace_or_ttl(ttl: float, patience: float) -> None:
    world = World()
    world.acquire()
    waiting = world.acquire(client="a", request_id="r", ttl=ttl)
    world.hang_up(waiting)
    assert world.recorded(EventType.DETACHED)[0].request_id == "r"
    assert world.snapshot().queue[0].reason is WaitReason.UNSPECIFIED
    world.advance(patience - 0.125)
    assert world.snapshot().queue_length == 1
    world.advance(0.125)
    assert world.snapshot().queue_length == 0


def test_the_wait_of_an_absent_request_ends_in_silence() -> None:
    world = World()
    world.acquire()
    waiting = world.acquire(client="a", request_id="r", max_wait=2)
    skipping = world.acquire(client="b", request_id="r", max_wait=2, busy=BusyPolicy.SKIP)
    for stream in (waiting, skipping):
        world.hang_up(stream)
    world.advance(2)
    assert world.snapshot().queue_length == 0
    assert "its stream is gone" in world.recorded(EventType.FAILED)[-1].detail


def test_a_close_after_the_last_answer_is_of_no_account() -> None:
    world = World()
    lease = world.acquire()
    world.release(lease)
    assert world.hang_up(lease) == []
    assert world.send(ev.StreamClosed(999, delivered=False)) == []


# -- held --


def test_an_unnamed_lease_ends_with_its_stream() -> None:
    world = World(settings_=settings(cooldown=0.0))
    lease = world.acquire()
    waiting = world.acquire()
    world.advance(2)
    world.hang_up(lease)
    assert waiting.held
    ended = world.recorded(EventType.ENDED)[0]
    assert (ended.end_reason, ended.held) == (EndReason.DISCONNECTED, 2.0)


def test_a_named_lease_lives_for_the_disconnect_grace() -> None:
    world = World(settings_=settings(cooldown=0.0))
    lease = world.acquire(request_id="r")
    waiting = world.acquire(client="b")
    world.hang_up(lease)
    assert world.snapshot().leases[0].ttl_remaining == 5
    world.advance(4.875)
    assert waiting.waiting
    world.advance(0.125)
    assert waiting.held
    ended = world.recorded(EventType.ENDED)[0]
    assert ended.end_reason is EndReason.DISCONNECTED
    assert ended.detail == "nothing joined or renewed for 5 s"


def test_without_a_disconnect_grace_a_named_lease_ends_too() -> None:
    world = World(settings_=settings(AT_ONCE, cooldown=0.0))
    world.hang_up(world.acquire(request_id="r"))
    assert world.arbiter.idle


def test_a_lease_with_a_ttl_lives_by_it_named_or_not() -> None:
    world = World(settings_=settings(cooldown=0.0))
    lease = world.acquire(ttl=30)
    assert lease.lease.ttl_remaining == 30
    world.advance(100)  # it does not run while a stream carries the lease
    assert world.snapshot().leases[0].ttl_remaining == 30
    world.hang_up(lease)
    world.advance(10)
    assert world.snapshot().leases[0].ttl_remaining == 20
    assert world.renew(lease.lease_id).ttl_remaining == 30
    world.advance(30)
    assert world.arbiter.idle
    assert world.recorded(EventType.ENDED)[0].end_reason is EndReason.TTL_EXPIRED


def test_a_renewal_proves_life_within_the_disconnect_grace() -> None:
    world = World()
    lease = world.acquire(request_id="r")
    world.hang_up(lease)
    world.advance(4)
    assert world.renew(lease.lease_id).ttl_remaining == 5
    world.advance(4)
    assert world.snapshot().leases[0].state is LeaseState.DETACHED


def test_a_ttl_beyond_the_policy_is_lowered() -> None:
    world = World(settings_=settings(replace(PATIENT, ttl_limit=60.0)))
    assert world.acquire(ttl=3600).lease.ttl == 60


# -- a grant that never arrived --


def test_an_unnamed_grant_that_was_never_written_ends_in_silence() -> None:
    world = World()
    holder = world.acquire()
    first, second = world.acquire(client="a"), world.acquire(client="b")
    world.release(holder)
    assert first.granted
    world.hang_up(first, delivered=False)
    assert second.held
    assert second.lease.fencing_token > first.lease.fencing_token
    assert world.gpu().cooldown_remaining is None
    with pytest.raises(ArbiterError) as refusal:
        world.renew(first.lease_id)
    assert refusal.value.reason is ErrorReason.LEASE_ENDED


def test_a_named_grant_that_was_never_written_goes_back_into_the_queue() -> None:
    world = World()
    holder = world.acquire()
    first = world.acquire(client="a", request_id="r")
    world.advance(1)
    second = world.acquire(client="b")
    world.release(holder)
    world.hang_up(first, delivered=False)
    assert second.held
    assert world.snapshot().queue[0].request_id == "r"
    # It never held anything: by its lease_id it is over, by its request_id it waits.
    assert world.release(lease_id=first.lease_id).already_ended
    world.advance(1)
    again = world.again(first)
    assert again.queued.position == 1
    world.release(second)
    assert again.held
    assert again.lease.queue_wait == 2
    assert again.lease.fencing_token > second.lease.fencing_token
    assert again.lease_id != first.lease_id


def test_nobody_joins_and_it_is_given_up() -> None:
    world = World()
    first = world.acquire(request_id="r")
    world.hang_up(first, delivered=False)
    world.advance(5)
    assert world.arbiter.idle
    assert world.again(first).held


def test_its_wait_goes_on_where_it_was() -> None:
    world = World()
    holder = world.acquire()
    first = world.acquire(client="a", request_id="r", max_wait=10)
    world.advance(8)
    world.release(holder)
    world.hang_up(first, delivered=False)
    world.advance(2)
    assert world.arbiter.idle


def test_a_grant_that_comes_back_frees_its_slots() -> None:
    policies = {"ONE": replace(PATIENT, max_concurrent_leases=1)}
    world = World(gpus(2), settings(policies=policies))
    first = world.acquire("ONE", "a", request_id="r", sequence=("talk", 0))
    second = world.acquire("ONE", "b")
    later = world.acquire("ONE", "a", sequence=("talk", 1))
    world.hang_up(first, delivered=False)
    assert second.held
    world.advance(5)
    assert later.waiting
    world.release(second)
    assert later.held


def test_a_lease_that_was_joined_is_not_taken_back_with_the_second_stream() -> None:
    """Its holder has it from the first stream."""
    world = World()
    first = world.acquire(request_id="r")
    world.hang_up(first)
    second = world.again(first)
    waiting = world.acquire(client="b", sharing=Sharing.SHARED)
    world.hang_up(second, delivered=False)
    assert waiting.waiting
    assert world.snapshot().leases[0].lease_id == first.lease_id
    third = world.again(first)
    assert third.lease.fencing_token == first.lease.fencing_token


def test_a_detached_grant_that_was_never_written_comes_back_too() -> None:
    world = World()
    first = world.acquire(request_id="r", ttl=20, detached=True)
    world.hang_up(first, delivered=False)
    assert world.snapshot().queue_length == 1
    world.advance(19.875)
    assert world.again(first).last
    assert len(world.snapshot().leases) == 1


def test_a_detached_grant_that_was_written_lives_by_its_ttl() -> None:
    world = World(settings_=settings(cooldown=0.0))
    first = world.acquire(request_id="r", ttl=20, detached=True)
    assert first.lease.ttl_remaining == 20
    world.advance(5)
    world.hang_up(first, delivered=True)
    assert world.snapshot().leases[0].ttl_remaining == 15
    world.advance(15)
    assert world.arbiter.idle


# -- a holder that dies --


def test_a_dead_process_ends_its_leases_and_its_waiting_requests() -> None:
    world = World(gpus(2), settings(cooldown=0.0))
    lease = world.acquire(process=pid(7), candidates=("gpu:0",))
    other = world.acquire(client="b", process=pid(8), candidates=("gpu:1",))
    waiting = world.acquire(process=pid(7), candidates=("gpu:1",))
    absent = world.acquire(request_id="r", process=pid(7), candidates=("gpu:1",))
    world.hang_up(absent)
    assert world.watched == {pid(7), pid(8)}
    world.die(pid(7))
    assert lease.ended.reason is EndReason.HOLDER_DIED
    assert lease.ended.detail == "process 7 is gone"
    assert waiting.error.reason is ErrorReason.CANCELLED
    assert "its process 7 is gone" in waiting.error.message
    assert world.snapshot().queue_length == 0
    assert other.held
    assert world.watched == {pid(8)}


def test_a_reused_pid_is_no_holder() -> None:
    world = World()
    lease = world.acquire(process=pid(7, start=100))
    world.die(pid(7, start=99))
    assert lease.held


def test_a_process_is_watched_once_for_all_that_it_holds() -> None:
    world = World(gpus(2))
    first, second = (world.acquire(process=pid(7)) for _ in range(2))
    world.acquire(process=pid(7))
    world.release(first)
    assert world.watched == {pid(7)}
    world.release(second)
    assert world.watched == {pid(7)}


def test_what_a_dead_process_used_counts_until_a_reading_shows_it_gone() -> None:
    world = World(gpus(monitored=True))
    world.show(processes={})
    world.shared(20 * GIB, process=pid(7))
    waiting = world.shared(20 * GIB, "b", process=pid(8))
    world.die(pid(7))
    assert world.reason(waiting) is WaitReason.MEMORY_RECOVERY
    world.look()
    assert waiting.held
