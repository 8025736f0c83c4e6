"""A lease between the decision to grant it and its holder: offered, taken back, or never offered at all.

Law: a lease that was not offered never was one for anybody outside. What its stream gets then is what a
waiting request would get.
"""

from gpuarbiter_server.core.clocks import start_patience, stop_clocks
from gpuarbiter_server.core.effects import Failed, Granted, YieldRequested
from gpuarbiter_server.core.errors import ArbiterError, ErrorReason
from gpuarbiter_server.core.leases import Lease
from gpuarbiter_server.core.model import EndReason, EventType
from gpuarbiter_server.core.queueing import enter_queue, start_wait
from gpuarbiter_server.core.records import EndedRecord
from gpuarbiter_server.core.snapshots import lease_view
from gpuarbiter_server.core.state import State
from gpuarbiter_server.core.withdrawal import remember


def offer(state: State, lease: Lease, now: float) -> None:
    """Hands a lease out to its holder."""
    call = lease.call
    assert call is not None, "nobody is there to be offered anything"
    lease.offered = True
    if lease.listener is None:
        start_patience(state, lease, now)
    state.emit(Granted(call, lease_view(state, lease, now), final=lease.ticket.request.detached))
    tell_pending_yield(state, lease, now)
    state.changed = True


def tell_pending_yield(state: State, lease: Lease, now: float) -> None:
    """A stream that comes to a lease late hears of the yield request that stands."""
    pending = lease.pending_yield
    if pending is not None and lease.listener is not None:
        reason, asked = pending
        grace = None if asked.until is None else max(0.0, asked.until - now)
        state.emit(YieldRequested(lease.listener, reason, grace, asked.detail))


def take_back(state: State, lease: Lease, why: str, now: float) -> None:
    """Its request waits again, where it waited before."""
    ticket = lease.ticket
    _undo(state, lease, why, now)
    if ticket.call is not None:
        state.calls[ticket.call] = ticket
    state.requests.put(ticket.key, ticket)
    state.ready_again(state.gates.returned(ticket))
    enter_queue(state, ticket)
    start_wait(state, ticket, now)


def forget(state: State, lease: Lease, why: str, now: float) -> None:
    """Nothing is left of it or of its request; what its stream is told is the caller's business."""
    ticket = lease.ticket
    _undo(state, lease, why, now)
    state.requests.remove(ticket.key)
    if ticket.call is not None:
        state.calls.pop(ticket.call, None)
    state.disown(ticket.process)
    remember(state, ticket, now)
    state.ready_again(state.gates.ended(ticket))
    state.changed = True


def withhold(state: State, lease: Lease, why: str, now: float) -> EndedRecord:
    """It ended before it could be offered: its request is cancelled."""
    forget(state, lease, why, now)
    ticket = lease.ticket
    state.record(EventType.FAILED, ticket, detail=why, outcome="cancelled")
    if ticket.call is not None:
        state.emit(Failed(ticket.call, ArbiterError(ErrorReason.CANCELLED, f"the request is cancelled: {why}")))
    return EndedRecord("", ticket.key, 0, EndReason.CANCELLED, held=0.0, ended_at=now)


def detach_from_gpus(state: State, lease: Lease, now: float, *, used: bool) -> None:
    """Frees the slots of a lease and stops its clocks. used: whether its holder ever knew of it."""
    stop_clocks(state, lease)
    for gpu, _ in lease.shares:
        gpu.remove(lease.lease_id, now, used=used)
        state.touch_gpu(gpu)
        if used:
            gpu.stats.held(now - lease.granted_at)
    state.dirty = True


def _undo(state: State, lease: Lease, why: str, now: float) -> None:
    """Takes the grant out of the books."""
    state.record(EventType.ENDED, lease, detail=f"not taken: {why}", held=0.0, end_reason=EndReason.CANCELLED)
    detach_from_gpus(state, lease, now, used=False)
    state.drop(lease)
    lease.ticket.call = lease.call
