"""What happens at max_hold, and to yield requests."""

from dataclasses import replace
from typing import Any

import pytest

from core.world import PATIENT, World, gpus, settings
from gpuarbiter_server.core import effects as fx
from gpuarbiter_server.core.model import EndReason, EventType, LeaseState, YieldReason
from gpuarbiter_server.core.policy import Policy, Watchdog


def watching(**steps: Any) -> World:
    return World(settings_=settings(replace(PATIENT, max_hold=8.0, watchdog=Watchdog(**steps)), cooldown=0.0))


def test_by_default_it_warns_and_asks() -> None:
    world = World(settings_=settings(Policy()))
    lease = world.acquire()
    assert lease.lease.hold_remaining == 8
    world.advance(7.875)
    assert not lease.of(fx.YieldRequested)
    world.advance(0.125)
    (asked,) = lease.of(fx.YieldRequested)
    assert (asked.reason, asked.grace) == (YieldReason.MAX_HOLD, None)
    (warned,) = world.recorded(EventType.HOLD_EXCEEDED)
    assert warned.held == 8
    assert world.gpu().stats.watchdog == 1
    world.advance(1000)
    assert lease.held
    assert world.snapshot().leases[0].state is LeaseState.YIELDING
    assert world.snapshot().leases[0].hold_remaining == 0


def test_a_release_after_a_yield_request_is_a_yield() -> None:
    world = watching()
    lease = world.acquire()
    world.advance(9)
    released = world.release(lease)
    assert released.reason is EndReason.YIELDED
    assert lease.ended.cause is YieldReason.MAX_HOLD


def test_with_revoke_it_ends_when_the_grace_is_over() -> None:
    world = watching(revoke=True, grace=5.0)
    lease = world.acquire()
    world.advance(8)
    assert lease.of(fx.YieldRequested)[0].grace == 5
    assert world.renew(lease.lease_id).pending_yield == fx.PendingYield(YieldReason.MAX_HOLD, 5.0, "")
    world.advance(4.875)
    assert lease.held
    world.advance(0.125)
    assert (lease.ended.reason, lease.ended.cause, lease.ended.held) == (EndReason.MAX_HOLD, YieldReason.MAX_HOLD, 13)
    assert lease.ended.detail == "held past the grace period"


def test_without_grace_it_ends_at_once() -> None:
    world = watching(revoke=True, grace=0.0)
    lease = world.acquire()
    world.advance(8)
    assert lease.ended.held == 8


def test_a_step_that_is_off_is_not_taken() -> None:
    world = watching(warn=False, yield_=False)
    lease = world.acquire()
    world.advance(100)
    assert lease.held
    assert not lease.of(fx.YieldRequested)
    assert not world.recorded(EventType.HOLD_EXCEEDED)
    assert world.snapshot().leases[0].state is LeaseState.HELD
    assert world.release(lease).reason is EndReason.RELEASED


def test_revoking_without_asking_asks_nobody() -> None:
    world = watching(yield_=False, revoke=True, grace=5.0)
    first = world.acquire()
    world.advance(10)
    assert world.snapshot().leases[0].state is LeaseState.HELD
    assert world.renew(first.lease_id).pending_yield is None
    assert world.release(first).reason is EndReason.RELEASED
    second = world.acquire()
    world.advance(13)
    assert (second.ended.reason, second.ended.cause) == (EndReason.MAX_HOLD, YieldReason.UNSPECIFIED)


def test_more_hold_takes_the_end_back_but_not_that_it_was_asked() -> None:
    world = watching(revoke=True, grace=5.0)
    lease = world.acquire()
    world.advance(10)
    renewed = world.renew(lease.lease_id, extend=20)
    assert renewed.hold_remaining == 20
    assert renewed.pending_yield == fx.PendingYield(YieldReason.MAX_HOLD, None, "")
    world.advance(19)
    assert lease.held
    world.advance(6)
    assert lease.ended.reason is EndReason.MAX_HOLD
    assert len(lease.of(fx.YieldRequested)) == 2


def test_more_hold_takes_a_silent_end_back() -> None:
    world = watching(yield_=False, revoke=True, grace=5.0)
    lease = world.acquire()
    world.advance(10)
    assert world.renew(lease.lease_id, extend=20).pending_yield is None
    world.advance(19)
    assert lease.held


@pytest.mark.parametrize(("asked", "given"), [(None, 8.0), (3.0, 3.0), (60.0, 30.0), (0.0, 30.0)])
def test_a_hold_is_within_the_limit_of_the_policy(asked: float | None, given: float) -> None:
    world = World(settings_=settings(Policy(max_hold=8.0, max_hold_limit=30.0)))
    assert world.acquire(max_hold=asked).lease.hold_remaining == given


def test_no_limit_no_watchdog() -> None:
    world = World(settings_=settings(Policy(max_hold=8.0)))
    lease = world.acquire(max_hold=0)
    assert lease.lease.hold_remaining is None
    world.advance(10**6)
    assert lease.held
    assert not world.records[2:]


def test_the_watchdog_looks_at_absent_holders_too() -> None:
    world = watching(revoke=True, grace=1.0)
    lease = world.acquire(ttl=60)
    world.hang_up(lease)
    world.advance(9)
    assert world.recorded(EventType.ENDED)[0].end_reason is EndReason.MAX_HOLD


def test_of_several_yield_requests_the_soonest_end_counts() -> None:
    world = watching(revoke=True, grace=10.0)
    lease = world.acquire()
    world.advance(8)
    world.revoke(lease.lease_id, grace=4, reason="now")
    assert world.renew(lease.lease_id).pending_yield == fx.PendingYield(YieldReason.OPERATOR, 4.0, "now")
    world.advance(4)
    assert (lease.ended.reason, lease.ended.cause) == (EndReason.OPERATOR, YieldReason.OPERATOR)
    assert lease.ended.detail == "now"


def test_one_that_ends_the_lease_counts_before_one_that_only_asks() -> None:
    world = watching()
    lease = world.acquire()
    world.advance(8)
    world.drain(grace=100)
    assert world.renew(lease.lease_id).pending_yield == fx.PendingYield(YieldReason.DRAINING, 100.0, "")
    assert world.release(lease).reason is EndReason.YIELDED
    assert lease.ended.cause is YieldReason.DRAINING


# -- idle --


def test_who_holds_an_idle_gpu_is_asked_and_keeps_it() -> None:
    world = World()
    lease = world.acquire(max_hold=0)
    assert world.ask_to_yield(lease.lease_id, "no work for 10 min") is fx.Asking.ASKED
    (asked,) = lease.of(fx.YieldRequested)
    assert (asked.reason, asked.grace, asked.detail) == (YieldReason.IDLE, None, "no work for 10 min")
    (record,) = world.recorded(EventType.YIELD_REQUESTED)
    assert (record.yield_reason, record.detail) == (YieldReason.IDLE, "no work for 10 min")
    world.advance(10**6)
    assert lease.held
    assert world.snapshot().leases[0].state is LeaseState.YIELDING
    assert world.release(lease).reason is EndReason.YIELDED
    assert lease.ended.cause is YieldReason.IDLE


def test_it_is_asked_once_whatever_else_it_is_asked_for() -> None:
    world = watching()
    lease = world.acquire()
    world.advance(8)
    assert world.ask_to_yield(lease.lease_id) is fx.Asking.ASKED
    revision = world.arbiter.revision
    assert world.ask_to_yield(lease.lease_id) is fx.Asking.ASKED_BEFORE
    assert world.arbiter.revision == revision
    assert [asked.reason for asked in lease.of(fx.YieldRequested)] == [YieldReason.MAX_HOLD, YieldReason.IDLE]


def test_a_policy_that_asks_nobody_at_max_hold_does_not_keep_it_from_being_asked() -> None:
    world = watching(yield_=False)
    lease = world.acquire()
    assert world.ask_to_yield(lease.lease_id) is fx.Asking.ASKED


@pytest.mark.parametrize("lease_id", ["", "x", "64-ffffffffffffffff"])
def test_what_is_no_lease_is_not_asked(lease_id: str) -> None:
    world = World()
    over = world.acquire()
    world.release(over)
    revision = world.arbiter.revision
    assert world.ask_to_yield(lease_id) is fx.Asking.GONE
    assert world.ask_to_yield(over.lease_id) is fx.Asking.GONE
    assert (world.arbiter.revision, world.recorded(EventType.YIELD_REQUESTED)) == (revision, [])


def test_if_it_is_only_asked_for_others_somebody_has_to_wait_for_one_of_its_gpus() -> None:
    world = World(gpus(3))
    lease = world.acquire(candidates=("gpu:0", "gpu:1"), count=2)
    world.acquire(candidates=("gpu:2",))
    elsewhere = world.acquire(candidates=("gpu:2",))
    assert elsewhere.waiting
    assert world.ask_to_yield(lease.lease_id, if_awaited=True) is fx.Asking.NOBODY_WAITS
    assert not lease.of(fx.YieldRequested)
    world.acquire(candidates=("gpu:1", "gpu:2"))
    assert world.ask_to_yield(lease.lease_id, if_awaited=True) is fx.Asking.ASKED


def test_an_absent_holder_hears_of_it_when_it_is_back() -> None:
    world = World(journal=True)
    lease = world.acquire(request_id="r", ttl=60)
    world.hang_up(lease)
    assert world.ask_to_yield(lease.lease_id, "idle") is fx.Asking.ASKED
    world.crash()
    assert world.ask_to_yield(lease.lease_id) is fx.Asking.ASKED_BEFORE
    assert world.renew(lease.lease_id).pending_yield == fx.PendingYield(YieldReason.IDLE, None, "idle")


# -- time --


def test_what_arrives_before_time_passes_is_read_first() -> None:
    """A renewal that was late on its way, but here before the Tick, still counts."""
    world = World(settings_=settings(cooldown=0.0))
    lease = world.acquire(ttl=10)
    world.hang_up(lease)
    world.now += 12
    assert world.renew(lease.lease_id).ttl_remaining == 10
    world.tick()
    assert len(world.snapshot().leases) == 1
