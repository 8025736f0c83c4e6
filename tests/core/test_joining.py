"""A second stream takes a request or lease over by its request_id."""

from dataclasses import replace

import pytest

from core.world import GIB, PATIENT, World, gpus, pid, settings
from gpuarbiter_server.core import effects as fx
from gpuarbiter_server.core.errors import ErrorReason
from gpuarbiter_server.core.model import (
    BusyPolicy,
    EndReason,
    EventType,
    GpuRequest,
    Holder,
    LeaseState,
    Sequence,
    Sharing,
    WaitReason,
    WorkContext,
    YieldReason,
)
from gpuarbiter_server.core.policy import Policy, Watchdog


def test_a_waiting_request_is_taken_over_and_goes_on_where_it_was() -> None:
    world = World()
    holder = world.acquire()
    first = world.acquire(client="a", request_id="r")
    behind = world.acquire(client="b")
    world.advance(2)
    second = world.again(first)
    assert first.error.reason is ErrorReason.SUPERSEDED
    assert second.queued.position == 1
    assert world.snapshot().queue_length == 2
    world.release(holder)
    assert second.held
    assert second.lease.queue_wait == 2
    assert behind.waiting
    assert [record.request_id for record in world.recorded(EventType.JOINED)] == ["r"]


def test_a_lease_is_taken_over() -> None:
    world = World()
    first = world.acquire(request_id="r")
    world.advance(1)
    second = world.again(first)
    assert first.error.reason is ErrorReason.SUPERSEDED
    assert second.lease.lease_id == first.lease_id
    assert second.lease.fencing_token == first.lease.fencing_token
    # The old stream's end is of no account now.
    world.advance(10)
    assert second.held
    released = world.release(second)
    assert released.held == 11
    assert second.ended.reason is EndReason.RELEASED


def test_a_lease_without_a_stream_is_joined_in_time() -> None:
    world = World()
    first = world.acquire(request_id="r")
    world.hang_up(first)
    assert world.snapshot().leases[0].state is LeaseState.DETACHED
    world.advance(4.875)
    second = world.again(first)
    assert second.held
    assert second.lease.state is LeaseState.HELD
    world.advance(100)
    assert second.held


def test_a_waiting_request_without_a_stream_is_joined_in_time_or_given_up() -> None:
    world = World()
    world.acquire()
    first = world.acquire(client="a", request_id="r")
    world.hang_up(first)
    world.advance(4.875)
    second = world.again(first)
    assert second.waiting
    world.hang_up(second)
    world.advance(5)
    assert world.snapshot().queue_length == 0
    assert world.recorded(EventType.FAILED)[-1].outcome == "cancelled"
    third = world.again(second)
    assert third.queued.position == 1
    assert third.of(fx.Queued)


@pytest.mark.parametrize("held", [True, False], ids=["held", "waiting"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task_type", "NMT"),
        ("gpu", GpuRequest(count=1, memory_bytes=1)),
        ("sequence", Sequence("talk", 2)),
        ("detached", True),
        ("ttl", 11.0),
    ],
)
def test_what_a_join_may_not_change(held: bool, field: str, value: object) -> None:
    world = World()
    if not held:
        world.acquire()
    first = world.acquire(client="a", request_id="r", ttl=10.0, sequence=("talk", 1))
    second = world.again(first, **{field: value})
    assert second.error.reason is ErrorReason.REQUEST_ID_CONFLICT
    assert second.error.metadata == {"fields": field}
    assert "'r' is in use with another " + field in second.error.message
    assert first.open
    assert first.held is held


def test_of_the_rest_the_newest_counts_for_a_request_that_waits() -> None:
    world = World()
    holder = world.acquire()
    first = world.acquire(client="a", request_id="r", priority=10, max_wait=2)
    other = world.acquire(client="b", priority=20)
    context = WorkContext(job_id="job")
    second = world.again(first, priority=30, max_wait=100.0, max_hold=7.0, context=context)
    assert second.queued.position == 1
    world.advance(50)
    assert second.waiting
    world.release(holder)
    assert second.held
    assert other.waiting
    assert second.lease.context == context
    assert second.lease.hold_remaining == 7.0


def test_a_join_can_shorten_the_wait_to_nothing() -> None:
    world = World()
    world.acquire()
    first = world.acquire(client="a", request_id="r")
    world.advance(5)
    second = world.again(first, max_wait=4.0)
    world.tick()
    assert second.error.reason is ErrorReason.WAIT_TIMEOUT


def test_a_join_can_go_back_in_the_queue() -> None:
    world = World()
    holder = world.acquire()
    first = world.acquire(client="a", request_id="r", priority=30)
    other = world.acquire(client="b", priority=20)
    second = world.again(first, priority=10)
    assert second.queued.position == 2
    world.release(holder)
    assert other.held


def test_of_the_rest_the_newest_counts_for_a_lease() -> None:
    world = World()
    first = world.acquire(request_id="r", max_hold=10, priority=10)
    world.advance(4)
    second = world.again(first, max_hold=20.0, priority=30)
    assert second.lease.hold_remaining == 16
    assert second.lease.priority == 30
    third = world.again(second, max_hold=2.0)
    assert third.lease.hold_remaining == 0
    world.tick()
    assert world.recorded(EventType.HOLD_EXCEEDED)
    fourth = world.again(third, max_hold=0.0)
    assert fourth.lease.hold_remaining is None
    # Unchanged wishes change nothing: an extended hold stays extended.
    fifth = world.again(fourth, max_hold=30.0)
    world.renew(fifth.lease_id, extend=500.0)
    assert world.again(fifth).lease.hold_remaining == 500


def test_a_hold_without_limit_never_passes() -> None:
    world = World()
    first = world.acquire(request_id="r", max_hold=10)
    second = world.again(first, max_hold=0.0)
    world.advance(100)
    assert second.held
    assert not world.recorded(EventType.HOLD_EXCEEDED)


def test_a_hold_without_limit_takes_the_threatened_end_back() -> None:
    policy = replace(PATIENT, watchdog=Watchdog(revoke=True, grace=5.0))
    world = World(settings_=settings(policy))
    first = world.acquire(request_id="r", max_hold=10)
    world.advance(12)
    assert first.of(fx.YieldRequested)[0].grace == 5.0
    second = world.again(first, max_hold=0.0)
    assert second.of(fx.YieldRequested)[0].grace is None  # that it was asked stands
    world.advance(100)
    assert second.held


def test_a_changed_policy_changes_nothing_that_a_join_may_not_change() -> None:
    dog = Watchdog(revoke=True)
    policy = replace(PATIENT, memory_bytes=10 * GIB, sharing=Sharing.SHARED, ttl_limit=60.0, priority=70, max_hold=9.0)
    world = World(settings_=settings(policy))
    first = world.acquire(request_id="r", ttl=60)
    waiting = world.shared(20 * GIB, "a", request_id="w")
    world.configure(default_policy=Policy(memory_bytes=30 * GIB, ttl_limit=5.0, max_wait=0.0, watchdog=dog))
    world.advance(9)
    second = world.again(first)
    assert second.lease.ttl == 60
    assert second.lease.sharing is Sharing.SHARED
    assert second.lease.priority == 70
    world.advance(60)
    assert second.held
    again = world.again(waiting)
    world.release(second)
    assert again.held
    assert again.lease.gpus[0].declared_bytes == 20 * GIB


def test_a_changed_holder_is_watched_instead() -> None:
    world = World(gpus(monitored=True))
    world.show(processes={})
    first = world.acquire(request_id="r", process=pid(1))
    assert world.watched == {pid(1)}
    second = world.again(first, holder=Holder("c1", process=pid(2)))
    assert world.watched == {pid(2)}
    world.die(pid(1))
    assert second.held
    world.show(used=GIB, processes={pid(2): GIB})
    assert world.snapshot().leases[0].gpus[0].observed_bytes == GIB
    world.die(pid(2))
    assert second.ended.reason is EndReason.HOLDER_DIED
    assert world.watched == set()


def test_two_clients_with_the_same_id_but_another_identity_never_meet() -> None:
    world = World(gpus(3))
    streams = [
        world.acquire(request_id="r"),
        world.acquire(request_id="r", client="c2"),
        world.acquire(request_id="r", principal="p2"),
    ]
    assert all(stream.held for stream in streams)
    assert len({stream.lease_id for stream in streams}) == 3


def test_once_the_lease_has_ended_it_answers_ended_again() -> None:
    world = World()
    first = world.acquire(request_id="r")
    world.advance(3)
    world.release(first)
    again = world.again(first)
    assert again.ended == replace(first.ended, call=again.call)
    assert again.ended.held == 3
    assert world.arbiter.idle
    # Whatever it asks for.
    assert world.again(first, task_type="NMT").ended.reason is EndReason.RELEASED


@pytest.mark.parametrize("how", ["declined", "timed out", "cancelled", "refused"])
def test_after_a_decline_or_an_error_it_starts_anew(how: str) -> None:
    world = World(settings_=settings(queue_limit=0 if how == "refused" else 8))
    holder = world.acquire()
    busy = BusyPolicy.SKIP if how == "declined" else BusyPolicy.WAIT
    first = world.acquire(client="a", request_id="r", busy=busy, max_wait=None if how == "cancelled" else 1)
    if how == "cancelled":
        world.release(request_id="r")
    world.advance(1)
    assert isinstance(first.last, fx.Declined if how == "declined" else fx.Failed)
    world.release(holder)
    assert world.again(first).held


def test_an_ended_request_is_forgotten_after_an_hour() -> None:
    world = World()
    first = world.acquire(request_id="r")
    world.release(first)
    world.advance(3600)
    world.release(world.acquire(request_id="other"))
    assert world.again(first).ended
    world.advance(1)
    world.release(world.acquire(request_id="another"))
    assert world.again(first).held


def test_an_unnamed_request_can_be_joined_by_the_name_it_was_told() -> None:
    world = World()
    world.acquire()
    first = world.acquire(client="a")
    name = first.queued.request_id
    assert name
    second = world.again(first, request_id=name)
    assert first.error.reason is ErrorReason.SUPERSEDED
    world.hang_up(second)
    assert world.snapshot().queue_length == 1  # it can be joined now


def test_a_caller_can_take_the_name_that_would_come_next() -> None:
    world = World()
    world.acquire()
    taken = world.acquire(client="a", request_id="here-3")
    unnamed = world.acquire(client="a")
    assert unnamed.queued.request_id not in ("", "here-3")
    world.cancel(unnamed)
    assert taken.waiting
    world.cancel(taken)


def test_a_pending_yield_is_told_to_whoever_joins() -> None:
    world = World()
    first = world.acquire(request_id="r")
    world.drain(reason="new driver", grace=10)
    world.advance(4)
    second = world.again(first)
    (asked,) = second.of(fx.YieldRequested)
    assert (asked.reason, asked.grace, asked.detail) == (YieldReason.DRAINING, 6.0, "new driver")
    assert second.lease.state is LeaseState.YIELDING
    world.advance(6)
    assert second.ended.reason is EndReason.REVOKED


# -- detached --


def test_a_detached_lease_is_joined_without_a_second_last_answer() -> None:
    world = World()
    first = world.acquire(request_id="r", ttl=10, detached=True)
    assert first.last == first.of(fx.Granted)[0]
    assert first.lease.state is LeaseState.DETACHED
    world.advance(4)
    # The stream's end has not come in yet.
    second = world.again(first)
    assert second.last == second.of(fx.Granted)[0]
    assert second.lease.lease_id == first.lease_id
    assert second.lease.ttl_remaining == 10
    world.hang_up(first)
    world.hang_up(second)
    world.advance(9.875)
    assert len(world.snapshot().leases) == 1
    world.advance(0.125)
    assert world.recorded(EventType.ENDED)[-1].end_reason is EndReason.TTL_EXPIRED


def test_a_detached_request_that_waits_is_joined_too() -> None:
    world = World()
    holder = world.acquire()
    first = world.acquire(client="a", request_id="r", ttl=10, detached=True)
    second = world.again(first)
    assert first.error.reason is ErrorReason.SUPERSEDED
    world.release(holder)
    assert second.last == second.of(fx.Granted)[0]


def test_the_end_of_a_detached_lease_is_told_to_whoever_asks_again() -> None:
    world = World(settings_=settings(cooldown=0.0))
    first = world.acquire(request_id="r", ttl=10, detached=True)
    world.hang_up(first)
    world.advance(10)
    assert world.again(first).ended.reason is EndReason.TTL_EXPIRED


def test_a_yield_request_to_a_detached_lease_waits_for_a_renewal() -> None:
    world = World()
    first = world.acquire(request_id="r", ttl=10, detached=True)
    world.revoke(first.lease_id, grace=5, reason="maintenance")
    assert not first.of(fx.YieldRequested)
    assert world.renew(first.lease_id).pending_yield == fx.PendingYield(YieldReason.OPERATOR, 5.0, "maintenance")


def test_a_join_behind_a_gate_is_told_so() -> None:
    world = World(gpus(2), settings(policies={"ONE": Policy(max_concurrent_leases=1, max_wait=None, max_hold=0)}))
    world.acquire("ONE")
    first = world.acquire("ONE", request_id="r")
    assert world.again(first).queued.reason is WaitReason.CONCURRENCY_LIMIT
