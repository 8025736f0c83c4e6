"""What the journal tells: that changes are durable, that they are not, that it may work again.

Law: nothing is granted that is not written. While it cannot be written, requests that have a place in the
queue keep it, those that come are refused, and leases go on.
"""

from gpuarbiter_server.core.effects import Serving
from gpuarbiter_server.core.errors import ArbiterError, ErrorReason
from gpuarbiter_server.core.events import JournalFailed, JournalRetried, JournalWritten
from gpuarbiter_server.core.leases import Lease
from gpuarbiter_server.core.model import WaitReason
from gpuarbiter_server.core.notices import LEAST_INTERVAL, tell
from gpuarbiter_server.core.offering import forget, offer, take_back
from gpuarbiter_server.core.records import Rewritten
from gpuarbiter_server.core.saving import everything
from gpuarbiter_server.core.state import State
from gpuarbiter_server.core.timers import Clock
from gpuarbiter_server.core.withdrawal import refuse

_WHY = "it could not be written"
# When to ask again, in seconds: the journal is tried about as often.
_RETRY = 1.0


def journal_written(state: State, event: JournalWritten, now: float) -> None:
    """Offers what is durable now; a journal that was written anew is back in service."""
    journal = state.journal
    if journal.rewritten_by is not None and event.number >= journal.rewritten_by:
        journal.rewritten_by = journal.fault = None
        state.emit(Serving(up=True))
        state.dirty = state.changed = True
    while journal.offers:
        lease, number = next(iter(journal.offers.items()))
        if number > event.number:
            return
        del journal.offers[lease]
        offer(state, lease, now)


def journal_failed(state: State, event: JournalFailed, now: float) -> None:
    """Takes back what was about to be granted, and grants nothing more."""
    journal = state.journal
    journal.fault, journal.rewritten_by = event.detail, None
    journal.leases.clear()
    journal.gpus.clear()
    state.emit(Serving(up=False, detail=f"the journal cannot be written: {event.detail}"))
    for lease in list(journal.offers):
        _not_granted(state, lease, now)
    state.dirty = state.changed = True


def journal_retried(state: State, _event: JournalRetried, _now: float) -> None:
    """Has everything written anew; from here on changes follow."""
    journal = state.journal
    if journal.fault is not None and journal.rewritten_by is None:
        journal.rewritten_by = journal.number + 1
        state.save(Rewritten(everything(state), journal.tokens_until))


def unavailable(state: State) -> ArbiterError | None:
    """The refusal of whatever would have to be durable; None while the journal can be written."""
    if state.journal.fault is None:
        return None
    message = f"the journal cannot be written, so no grant can be made durable: {state.journal.fault}"
    return ArbiterError(ErrorReason.JOURNAL_UNAVAILABLE, message, retry_after=_RETRY)


def check_journal(state: State) -> None:
    """Raises the refusal of what would have to be durable, while nothing can be."""
    error = unavailable(state)
    if error is not None:
        raise error


def _not_granted(state: State, lease: Lease, now: float) -> None:
    """A request that had a place keeps it; one that had just come is refused like any that comes now."""
    ticket = lease.ticket
    if ticket.told_position and not state.shutting_down:
        take_back(state, lease, _WHY, now)
        if ticket.told_call != ticket.call or now - ticket.told_at >= LEAST_INTERVAL:
            tell(state, ticket, now)
        else:
            state.timers.set((Clock.NOTICE, ticket), ticket.told_at + LEAST_INTERVAL)
        return
    error = unavailable(state)
    assert error is not None, "nothing is taken back while the journal can be written"
    forget(state, lease, _WHY, now)
    refuse(state, ticket, error, WaitReason.JOURNAL, now)
