"""What operators do: drain and resume GPUs, revoke leases, change settings, shut down."""

from gpuarbiter_server.core.admission import infeasible
from gpuarbiter_server.core.clocks import call_off
from gpuarbiter_server.core.effects import Done, Drained, Recorded
from gpuarbiter_server.core.ending import finish
from gpuarbiter_server.core.errors import ArbiterError, ErrorReason, unknown_lease
from gpuarbiter_server.core.events import Configure, Drain, Resume, Revoke, Shutdown
from gpuarbiter_server.core.explain import retry_after
from gpuarbiter_server.core.fairness import order_key
from gpuarbiter_server.core.journaling import check_journal
from gpuarbiter_server.core.leases import Lease
from gpuarbiter_server.core.ledger import Gpu
from gpuarbiter_server.core.model import EndReason, EventType, WaitReason, YieldReason
from gpuarbiter_server.core.state import State
from gpuarbiter_server.core.watchdog import request_yield
from gpuarbiter_server.core.withdrawal import refuse, withdraw


def drain(state: State, event: Drain, now: float) -> None:
    """No new grants on these GPUs; with a grace, their holders are asked to yield and then revoked."""
    gpus = state.pick(event.gpus, everything=event.everything)
    check_journal(state)
    for gpu in gpus:
        gpu.cordon = event.reason or "drained by an operator"
        state.touch_gpu(gpu)
    leases = _leases_on(state, gpus)
    if event.grace is not None:
        for lease in leases:
            request_yield(state, lease, YieldReason.DRAINING, now, grace=event.grace, detail=event.reason)
    state.emit(Recorded(EventType.DRAINED, gpus=tuple(gpu.key for gpu in gpus), detail=event.reason))
    state.emit(Drained(event.call, len(leases)))
    _service_changed(state)


def resume(state: State, event: Resume, _now: float) -> None:
    """Takes a drain back, and with it the ends that it threatened."""
    gpus = state.pick(event.gpus, everything=event.everything)
    check_journal(state)
    for gpu in gpus:
        gpu.cordon = None
        state.touch_gpu(gpu)
    for lease in _leases_on(state, gpus):
        if all(gpu.cordon is None for gpu, _ in lease.shares):
            call_off(state, lease, YieldReason.DRAINING)
    state.emit(Recorded(EventType.RESUMED, gpus=tuple(gpu.key for gpu in gpus)))
    state.emit(Done(event.call))
    _service_changed(state)


def revoke(state: State, event: Revoke, now: float) -> None:
    """Asks a holder to yield and ends the lease when the grace is over; what has ended is fine."""
    lease = state.leases.live.get(event.lease_id)
    if lease is None:
        if not state.leases.issued(event.lease_id):
            raise unknown_lease(event.lease_id)
    elif event.grace:
        request_yield(
            state,
            lease,
            YieldReason.OPERATOR,
            now,
            grace=event.grace,
            end_reason=EndReason.OPERATOR,
            detail=event.reason,
        )
    else:
        finish(state, lease, EndReason.OPERATOR, now, detail=event.reason, cause=YieldReason.OPERATOR)
    state.emit(Done(event.call))


def configure(state: State, event: Configure, now: float) -> None:
    """New settings. Leases and waiting requests keep their terms; limits count for what comes.

    Who waits for what would not fit on an empty GPU any more is refused.
    """
    aging, state.settings = state.settings.aging, event.settings
    for gpu in state.gpus.values():
        gpu.configure(event.settings.memory)
    state.emit(Recorded(EventType.CONFIG_UPDATED, detail=event.detail))
    for ticket in list(state.queue.in_order()):
        error = infeasible(ticket) if event.settings.enabled else None
        if error is not None:
            # It would hold back everyone behind it for ever.
            withdraw(state, ticket, now)
            refuse(state, ticket, error, WaitReason.INFEASIBLE, now)
        elif aging != event.settings.aging:
            # Places that two rates gave cannot be compared.
            state.queue.remove(ticket)
            state.queue.add(ticket, order_key(ticket.terms.priority, ticket.enqueued_at, event.settings.aging))
    _service_changed(state)


def shut_down(state: State, _event: Shutdown, now: float) -> None:
    """Ends every wait and takes no new requests; leases can still be renewed and released."""
    if state.shutting_down:
        return
    state.shutting_down = True
    state.emit(Recorded(EventType.STOPPING))
    error = ArbiterError(ErrorReason.SHUTDOWN, "the arbiter is shutting down", retry_after=retry_after(()))
    for ticket in list(state.queue.in_order()):
        withdraw(state, ticket, now)
        refuse(state, ticket, error, WaitReason.SHUTDOWN, now)
    if not state.journal.enabled:
        # With a journal the leases live on, and their holders come back to them.
        detail = "the arbiter is shutting down, and keeps its leases in memory only"
        for lease in list(state.leases.live.values()):
            request_yield(state, lease, YieldReason.DRAINING, now, grace=None, detail=detail)
    state.changed = True


def _leases_on(state: State, gpus: tuple[Gpu, ...]) -> list[Lease]:
    """The leases that have any of these GPUs, each once."""
    ids = {lease_id: None for gpu in gpus for lease_id in gpu.shares}
    return [state.leases.live[lease_id] for lease_id in ids]


def _service_changed(state: State) -> None:
    """GPUs came into service or went out of it, or limits moved: gates may open."""
    state.ready_again(state.gates.reopened())
    state.changed = True
