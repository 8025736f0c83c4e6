"""The clocks of a lease: its hold, its liveness, and the grace of the yield requests that stand.

Renewing proves life and does not move the hold, unless it asks to. What happens when a clock runs out
is the watchdog's business.
"""

from gpuarbiter_server.core.leases import Lease
from gpuarbiter_server.core.model import YieldReason
from gpuarbiter_server.core.state import State
from gpuarbiter_server.core.timers import Clock


def start_hold(state: State, lease: Lease, now: float) -> None:
    """Starts the hold."""
    if lease.terms.max_hold:
        set_hold(state, lease, now + lease.terms.max_hold)


def stop_clocks(state: State, lease: Lease) -> None:
    """Stops every clock of a lease."""
    for clock in (Clock.HOLD, Clock.PATIENCE, Clock.GRACE):
        state.timers.cancel((clock, lease))


def set_hold(state: State, lease: Lease, until: float | None) -> None:
    """Moves the moment at which the watchdog acts (None: never); what it did before, except asking, is taken back."""
    lease.hold_until = until
    lease.hold_passed = False
    if until is None:
        state.timers.cancel((Clock.HOLD, lease))
    else:
        state.timers.set((Clock.HOLD, lease), until)
    state.touch(lease)
    call_off(state, lease, YieldReason.MAX_HOLD)


def start_patience(state: State, lease: Lease, now: float) -> None:
    """Starts the ttl, or the disconnect grace, again."""
    state.timers.set((Clock.PATIENCE, lease), now + lease.patience)


def claim(state: State, lease: Lease) -> bool:
    """Its holder is there; returns whether that is news after a restart."""
    if lease.recover_until is None:
        return False
    lease.recover_until = None
    for _, share in lease.shares:
        share.unclaimed = False
    state.touch(lease)
    state.notices_due = state.changed = True
    return True


def stop_patience(state: State, lease: Lease) -> None:
    """A stream carries the lease: its ttl does not run."""
    state.timers.cancel((Clock.PATIENCE, lease))


def ttl_remaining(state: State, lease: Lease, now: float) -> float | None:
    """Seconds until it ends unless renewed or joined; None when it is bound to its stream."""
    until = state.timers.when((Clock.PATIENCE, lease))
    if until is not None:
        return max(0.0, until - now)
    return lease.terms.ttl or None


def set_grace(state: State, lease: Lease) -> None:
    """Sets the clock to the earliest end that threatens the lease."""
    threat = lease.threat
    if threat is not None and threat[1].until is not None:
        state.timers.set((Clock.GRACE, lease), threat[1].until)
    else:
        state.timers.cancel((Clock.GRACE, lease))


def call_off(state: State, lease: Lease, reason: YieldReason) -> None:
    """No end follows from a yield request any more; that it was asked stands until the lease ends."""
    pending = lease.yields.get(reason)
    if pending is not None:
        pending.until = None
        set_grace(state, lease)
        state.touch(lease)
