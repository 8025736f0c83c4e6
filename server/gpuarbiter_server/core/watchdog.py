"""What happens when a clock of a lease runs out, and how a holder is asked to yield.

At max_hold the watchdog warns, asks to yield, and after the grace period ends the lease, each step as
the policy says. A lease that nothing joins or renews in time ends by itself.
"""

from gpuarbiter_server.core.clocks import set_grace
from gpuarbiter_server.core.effects import Asked, Asking, YieldRequested
from gpuarbiter_server.core.ending import finish
from gpuarbiter_server.core.events import AskToYield
from gpuarbiter_server.core.leases import Lease, PendingYield
from gpuarbiter_server.core.model import EndReason, EventType, YieldReason
from gpuarbiter_server.core.state import State


def hold_passed(state: State, lease: Lease, now: float) -> None:
    """max_hold is over."""
    watchdog = lease.terms.watchdog
    lease.hold_passed = True
    state.touch(lease)
    for gpu, _ in lease.shares:
        gpu.stats.watchdog += 1
    if watchdog.warn:
        state.record(
            EventType.HOLD_EXCEEDED,
            lease,
            detail=f"held for {now - lease.granted_at:.3f} s",
            held=now - lease.granted_at,
        )
    grace = watchdog.grace if watchdog.revoke else None
    if watchdog.yield_:
        request_yield(state, lease, YieldReason.MAX_HOLD, now, grace=grace, end_reason=EndReason.MAX_HOLD)
    elif grace is not None:
        lease.yields[YieldReason.MAX_HOLD] = PendingYield("", now + grace, EndReason.MAX_HOLD, asked=False)
        set_grace(state, lease)


def patience_passed(state: State, lease: Lease, now: float) -> None:
    """Nothing joined or renewed in time."""
    reason = EndReason.TTL_EXPIRED if lease.terms.ttl else EndReason.DISCONNECTED
    detail = f"nothing joined or renewed for {lease.patience:g} s"
    if lease.recover_until is not None:
        reason = EndReason.TTL_EXPIRED if lease.terms.ttl else EndReason.NOT_RECOVERED
        detail = "its holder did not come back after the arbiter was restarted"
    finish(state, lease, reason, now, detail=detail)


def grace_passed(state: State, lease: Lease, now: float) -> None:
    """A yield request was ignored past its deadline, or there was none and the lease is to end all the same."""
    threat = lease.threat
    assert threat is not None, "the clock runs for a threat only"
    reason, pending = threat
    cause = reason if pending.asked else YieldReason.UNSPECIFIED
    finish(state, lease, pending.end_reason, now, detail=pending.detail or "held past the grace period", cause=cause)


def ask_to_yield(state: State, event: AskToYield, now: float) -> None:
    """Its GPUs do no work: the holder is asked once, and may keep the lease."""
    lease = state.leases.live.get(event.lease_id)
    if lease is None:
        asking = Asking.GONE
    elif YieldReason.IDLE in lease.yields:
        asking = Asking.ASKED_BEFORE
    elif event.if_awaited and not any(state.queue.length(key) for key in lease.gpu_keys):
        asking = Asking.NOBODY_WAITS
    else:
        asking = Asking.ASKED
        request_yield(state, lease, YieldReason.IDLE, now, grace=None, detail=event.detail)
    state.emit(Asked(event.call, asking))


def request_yield(
    state: State,
    lease: Lease,
    reason: YieldReason,
    now: float,
    *,
    grace: float | None,
    end_reason: EndReason = EndReason.REVOKED,
    detail: str = "",
) -> None:
    """Asks the holder to stop; grace: ends the lease when it is over, None only asks."""
    until = None if grace is None else now + grace
    lease.yields[reason] = PendingYield(detail, until, end_reason)
    state.touch(lease)
    set_grace(state, lease)
    if lease.listener is not None and lease.offered:
        state.emit(YieldRequested(lease.listener, reason, grace, detail))
    state.record(EventType.YIELD_REQUESTED, lease, detail=detail, yield_reason=reason)
    state.changed = True
