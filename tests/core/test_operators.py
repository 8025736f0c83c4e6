"""What operators do: drain, resume, revoke, configure, shut down."""

from dataclasses import replace

import pytest

from core.world import GIB, PATIENT, World, gpus, settings
from gpuarbiter_server.core import effects as fx
from gpuarbiter_server.core.errors import ArbiterError, ErrorReason
from gpuarbiter_server.core.model import BusyPolicy, EndReason, EventType, LeaseState, WaitReason, YieldReason
from gpuarbiter_server.core.policy import Memory, Policy

# -- drain and resume --


def test_a_drain_lets_leases_go_on_and_requests_wait() -> None:
    world = World(gpus(2))
    lease = world.acquire(candidates=("gpu:0",))
    waiting = world.acquire(candidates=("gpu:0",))
    drained = world.drain("gpu:0", reason="new driver")
    assert drained.leases_left == 1
    world.release(lease)
    assert waiting.waiting
    assert world.reason(waiting) is WaitReason.DRAINING
    assert [gpu.cordoned for gpu in world.snapshot().gpus] == [True, False]
    assert world.snapshot().draining is False
    (record,) = world.recorded(EventType.DRAINED)
    assert (record.gpus, record.detail) == (("gpu:0",), "new driver")
    world.resume("gpu:0")
    assert waiting.held
    assert world.recorded(EventType.RESUMED)[0].gpus == ("gpu:0",)


def test_a_drain_of_everything() -> None:
    world = World(gpus(2))
    both = world.acquire(count=2)
    assert world.drain().leases_left == 1
    assert world.snapshot().draining
    assert both.held
    world.resume()
    assert not world.snapshot().draining


def test_with_a_grace_holders_are_asked_and_then_revoked() -> None:
    world = World(settings_=settings(cooldown=0.0))
    yields, stays = world.shared(GIB), world.shared(GIB)
    world.drain(reason="new driver", grace=10)
    for lease in (yields, stays):
        (asked,) = lease.of(fx.YieldRequested)
        assert (asked.reason, asked.grace, asked.detail) == (YieldReason.DRAINING, 10.0, "new driver")
    world.advance(5)
    assert world.release(yields).reason is EndReason.YIELDED
    world.advance(5)
    assert (stays.ended.reason, stays.ended.cause) == (EndReason.REVOKED, YieldReason.DRAINING)
    assert stays.ended.detail == "new driver"


def test_without_any_grace_they_are_revoked_at_once() -> None:
    world = World()
    lease = world.acquire()
    world.drain(grace=0)
    world.tick()
    assert lease.ended.reason is EndReason.REVOKED
    assert lease.ended.detail == "held past the grace period"


def test_a_resume_takes_the_threatened_end_back_and_not_the_request_to_yield() -> None:
    """A yield request stands until the lease ends."""
    world = World()
    lease = world.acquire()
    world.drain(reason="new driver", grace=10)
    world.advance(5)
    world.resume()
    world.advance(60)
    assert lease.held
    assert world.snapshot().leases[0].state is LeaseState.YIELDING
    assert world.renew(lease.lease_id).pending_yield == fx.PendingYield(YieldReason.DRAINING, None, "new driver")
    assert world.release(lease).reason is EndReason.YIELDED


def test_a_lease_is_spared_only_when_all_its_gpus_are_resumed() -> None:
    world = World(gpus(3))
    both = world.acquire(candidates=("gpu:0", "gpu:1"), count=2)
    untouched = world.acquire(candidates=("gpu:2",))
    world.drain(grace=10)
    world.resume("gpu:2")
    world.resume("gpu:0")
    world.advance(10)
    assert both.ended.reason is EndReason.REVOKED
    assert untouched.held


def test_a_resume_where_nothing_is_drained_is_fine() -> None:
    world = World()
    lease = world.acquire()
    world.resume()
    assert lease.held


# -- revoke --


def test_a_revocation_with_grace_asks_first() -> None:
    world = World(settings_=settings(cooldown=0.0))
    lease = world.acquire()
    world.revoke(lease.lease_id, grace=10, reason="greedy")
    (asked,) = lease.of(fx.YieldRequested)
    assert (asked.reason, asked.grace, asked.detail) == (YieldReason.OPERATOR, 10.0, "greedy")
    assert world.recorded(EventType.YIELD_REQUESTED)[0].yield_reason is YieldReason.OPERATOR
    world.advance(10)
    assert (lease.ended.reason, lease.ended.cause, lease.ended.detail) == (
        EndReason.OPERATOR,
        YieldReason.OPERATOR,
        "greedy",
    )


def test_a_revocation_without_grace_ends_the_lease_at_once() -> None:
    world = World(settings_=settings(cooldown=0.0))
    lease, waiting = world.acquire(), world.acquire()
    world.revoke(lease.lease_id, reason="greedy")
    assert lease.ended.reason is EndReason.OPERATOR
    assert waiting.held


def test_what_has_ended_is_fine_and_what_never_was_is_not() -> None:
    world = World()
    lease = world.acquire()
    world.release(lease)
    assert isinstance(world.revoke(lease.lease_id), fx.Done)
    with pytest.raises(ArbiterError) as refusal:
        world.revoke("64-ffffffffffffffff")
    assert refusal.value.reason is ErrorReason.UNKNOWN_LEASE


# -- configure --


def test_leases_and_waiting_requests_keep_their_terms() -> None:
    world = World(settings_=settings(replace(PATIENT, max_hold=10.0, max_wait=10.0, priority=70)))
    lease, waiting = world.acquire(), world.acquire()
    world.configure(default_policy=Policy(max_hold=1.0, max_wait=1.0, priority=10, busy_policy=BusyPolicy.SKIP))
    assert world.recorded(EventType.CONFIG_UPDATED)[0].detail == "changed"
    world.advance(9.875)
    assert waiting.waiting
    assert not lease.of(fx.YieldRequested)
    assert world.snapshot().leases[0].priority == 70
    assert world.acquire(max_wait=0).declined
    world.advance(0.125)
    assert waiting.error.reason is ErrorReason.WAIT_TIMEOUT
    assert lease.of(fx.YieldRequested)


@pytest.mark.parametrize(("before", "after"), [(1.0, 0.0), (1.0, 2.0), (0.0, 1.0)])
def test_another_rate_of_aging_reorders_the_whole_queue(before: float, after: float) -> None:
    world = World(gpus(2), settings(aging=before, policies={"ONE": replace(PATIENT, max_concurrent_leases=1)}))
    world.acquire("ONE", candidates=("gpu:1",))
    holder = world.acquire(candidates=("gpu:0",))
    old = world.acquire(priority=50, candidates=("gpu:0",))
    limited = world.acquire("ONE", priority=100, candidates=("gpu:0",))
    world.advance(10)
    world.configure(aging=after)
    new = world.acquire(priority=52, candidates=("gpu:0",))
    higher = world.acquire(priority=80, candidates=("gpu:0",))
    positions = {name: stream.queued.position for name, stream in (("new", new), ("higher", higher))}
    # Ten seconds are worth more than two levels where there is aging at all, and never worth thirty.
    assert positions == ({"new": 3, "higher": 2} if after else {"new": 2, "higher": 2})
    world.release(holder)
    assert higher.held
    world.release(higher)
    assert old.held is bool(after)
    assert new.held is not bool(after)
    assert limited.waiting


def test_what_a_change_makes_infeasible_is_refused_and_holds_nobody_back() -> None:
    world = World(gpus(2))
    holders = [world.shared(20 * GIB), world.shared(20 * GIB)]
    large = world.shared(22 * GIB, count=2)
    skipping = world.shared(22 * GIB, busy=BusyPolicy.SKIP, max_wait=60, request_id="r")
    absent = world.shared(22 * GIB, request_id="absent")
    world.hang_up(absent)
    small = world.shared(2 * GIB)
    assert small.waiting
    world.configure(memory=Memory(headroom_bytes=3 * GIB))
    assert large.error.reason is ErrorReason.INFEASIBLE
    assert large.error.metadata["capacity_bytes"] == str(21 * GIB)
    assert skipping.declined.reason is WaitReason.INFEASIBLE
    assert small.waiting
    world.release(holders[0])
    assert small.held
    assert world.snapshot().queue_length == 0


def test_a_change_that_opens_room_grants_at_once() -> None:
    world = World(settings_=settings(memory=Memory(headroom_bytes=10 * GIB)))
    world.shared(14 * GIB)
    waiting = world.shared(4 * GIB)
    world.configure(memory=Memory(headroom_bytes=GIB))
    assert waiting.held


# -- shutdown --


def test_a_shutdown_ends_every_wait_and_takes_no_new_requests() -> None:
    world = World()
    lease = world.acquire(request_id="lease")
    waiting = world.acquire()
    skipping = world.acquire(busy=BusyPolicy.SKIP)
    absent = world.acquire(request_id="absent")
    world.hang_up(absent)
    world.shut_down()
    assert waiting.error.reason is ErrorReason.SHUTDOWN
    assert waiting.error.retry_after == 1.0
    assert skipping.declined.reason is WaitReason.SHUTDOWN
    assert world.snapshot().queue_length == 0
    assert world.snapshot().draining
    assert world.acquire().error.reason is ErrorReason.SHUTDOWN
    assert world.shut_down() == []
    assert len(world.recorded(EventType.STOPPING)) == 1
    # Leases go on: they can be joined, renewed and released.
    again = world.again(lease)
    world.renew(again.lease_id)
    world.release(again)
    assert world.arbiter.idle


def test_a_grant_that_comes_back_during_a_shutdown_is_not_granted_again() -> None:
    world = World()
    unseen = world.acquire(request_id="r")
    world.shut_down()
    world.hang_up(unseen, delivered=False)
    assert world.arbiter.idle
    assert world.again(unseen).error.reason is ErrorReason.SHUTDOWN
