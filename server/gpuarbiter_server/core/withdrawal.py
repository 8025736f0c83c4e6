"""How a waiting request leaves without a lease: refused, declined, timed out, taken back, given up.

Law: whatever the way, it gets exactly one terminal effect, and nothing of it stays behind.
"""

from gpuarbiter_server.core.effects import Declined, Failed
from gpuarbiter_server.core.errors import ArbiterError, ErrorReason
from gpuarbiter_server.core.explain import blockers_of, describe, facts_of, retry_after, wait_reason
from gpuarbiter_server.core.model import BusyPolicy, EndReason, EventType, WaitReason
from gpuarbiter_server.core.queueing import leave_queue
from gpuarbiter_server.core.records import EndedRecord
from gpuarbiter_server.core.state import State
from gpuarbiter_server.core.ticket import Ticket

# How a refusal is counted where its own name says too little.
_OUTCOMES = {
    ErrorReason.QUEUE_FULL: "queue_full",
    ErrorReason.WAIT_TIMEOUT: "timeout",
    ErrorReason.INFEASIBLE: "no_memory",
    ErrorReason.CANCELLED: "cancelled",
}
_DECLINED_OUTCOMES = {BusyPolicy.SKIP: "skipped", BusyPolicy.FALLBACK_CPU: "fallback_cpu"}


def withdraw(state: State, ticket: Ticket, now: float) -> None:
    """Takes a request out for good; its terminal effect is the caller's business."""
    leave_queue(state, ticket)
    state.requests.remove(ticket.key)
    if ticket.call is not None:
        state.calls.pop(ticket.call, None)
    state.disown(ticket.process)
    remember(state, ticket, now)
    state.ready_again(state.gates.left(ticket))


def remember(state: State, ticket: Ticket, now: float) -> None:
    """A named request is over without a lease: a release of it, sent to be safe, is answered as one that came late."""
    if ticket.named:
        state.close(EndedRecord("", ticket.key, 0, EndReason.CANCELLED, held=0.0, ended_at=now, detail="never held"))


def refuse(state: State, ticket: Ticket, error: ArbiterError, reason: WaitReason, now: float) -> None:
    """Answers a request that gets no lease: an error, or a decline where its busy policy says so.

    The request is not in the tables any more, or never was.
    """
    waited = now - ticket.enqueued_at
    if ticket.terms.busy_policy is BusyPolicy.WAIT:
        outcome = _OUTCOMES.get(error.reason, "error")
        state.record(EventType.FAILED, ticket, detail=error.message, waited=waited, outcome=outcome)
        if ticket.call is not None:
            state.emit(Failed(ticket.call, error))
        return
    for gpu in ticket.gpus:
        gpu.stats.declined += 1
    outcome = _DECLINED_OUTCOMES[ticket.terms.busy_policy]
    state.record(EventType.DECLINED, ticket, detail=error.message, waited=waited, outcome=outcome)
    if ticket.call is not None:
        state.emit(
            Declined(
                ticket.call,
                decision=ticket.terms.busy_policy,
                reason=reason,
                waited=waited,
                retry_after=error.retry_after,
                detail=error.message,
                blockers=blockers_of(ticket.gpus, state, now),
            )
        )


def expire_wait(state: State, ticket: Ticket, now: float) -> None:
    """max_wait is over."""
    blocked_by = wait_reason(state, ticket)
    blockers = blockers_of(ticket.gpus, state, now)
    waited = now - ticket.enqueued_at
    facts = facts_of(blocked_by, blockers) | {
        "waited_seconds": f"{waited:.3f}",
        "position": str(state.queue.position(ticket)),
    }
    for gpu in ticket.gpus:
        gpu.stats.timed_out += 1
    error = ArbiterError(
        ErrorReason.WAIT_TIMEOUT,
        f"waited {waited:.3f} s of at most {ticket.terms.max_wait:g} s: {describe(blocked_by, blockers)}",
        metadata=facts,
        retry_after=retry_after(ticket.gpus),
    )
    reason = WaitReason.TIMEOUT if ticket.terms.max_wait else blocked_by
    withdraw(state, ticket, now)
    refuse(state, ticket, error, reason, now)


def give_up(state: State, ticket: Ticket, now: float) -> None:
    """Nobody joined a request whose stream is gone, or nobody could."""
    withdraw(state, ticket, now)
    _cancelled(state, ticket, "its stream is gone and nothing joined", now)


def take_back(state: State, ticket: Ticket, now: float, why: str = "taken back while it waited") -> None:
    """Takes a waiting request back, by its caller's word or for its holder's death."""
    call = ticket.call
    withdraw(state, ticket, now)
    _cancelled(state, ticket, why, now)
    if call is not None:
        state.emit(Failed(call, ArbiterError(ErrorReason.CANCELLED, f"the request is cancelled: {why}")))


def _cancelled(state: State, ticket: Ticket, why: str, now: float) -> None:
    state.record(EventType.FAILED, ticket, detail=why, waited=now - ticket.enqueued_at, outcome="cancelled")
