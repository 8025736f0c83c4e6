"""What waiting clients are told: at once when they have to wait, then when it changes, and now and then.

At most four times a second when the reason or a position up to 16 changes, and otherwise every ten
seconds. Changes are looked for among the first 256 of each lane; those further back hear of theirs with
the regular notice, which keeps the cost of a crowd in bounds.
"""

from itertools import islice

from gpuarbiter_server.core.effects import Place, Queued
from gpuarbiter_server.core.explain import blockers_of, describe, estimated_wait, wait_reason
from gpuarbiter_server.core.state import State
from gpuarbiter_server.core.ticket import Ticket
from gpuarbiter_server.core.timers import Clock

LEAST_INTERVAL = 0.25
REGULAR_INTERVAL = 10.0
_TOLD_POSITIONS = 16
_LOOKED_AT = 256


def tell(state: State, ticket: Ticket, now: float) -> Place:
    """Tells a waiting client where it stands; returns that."""
    assert ticket.call is not None, "nobody is there to be told anything"
    state.timers.set((Clock.NOTICE, ticket), now + REGULAR_INTERVAL)
    position = state.queue.position(ticket)
    reason = wait_reason(state, ticket)
    blockers = blockers_of(ticket.gpus, state, now)
    ticket.told_call, ticket.told_at, ticket.told_position, ticket.told_reason = ticket.call, now, position, reason
    longest = max(state.queue.length(gpu.key) for gpu in ticket.gpus)
    state.emit(
        Queued(
            ticket.call,
            ticket.key.request_id,
            position,
            longest,
            reason,
            estimated_wait(ticket, position, blockers),
            describe(reason, blockers),
            blockers,
        )
    )
    return Place(position, longest, reason, tuple(blocker.lease_id for blocker in blockers))


def publish(state: State, _: object, now: float) -> None:
    """Tells those for whom something has changed."""
    state.published_at = now
    later = False
    for lane in state.queue.lanes:
        for entry in islice(lane.tickets, _LOOKED_AT):
            ticket = entry[2]
            if ticket.call is None or not _news(state, ticket):
                continue
            if now - ticket.told_at >= LEAST_INTERVAL:
                tell(state, ticket, now)
            else:
                later = True
    if later:
        state.timers.set((Clock.PUBLISH, None), now + LEAST_INTERVAL)


def _news(state: State, ticket: Ticket) -> bool:
    """Whether what the client was told last is no longer so."""
    position = min(state.queue.position(ticket), _TOLD_POSITIONS + 1)
    return (
        position != min(ticket.told_position, _TOLD_POSITIONS + 1) or wait_reason(state, ticket) != ticket.told_reason
    )


def plan(state: State, now: float) -> None:
    """Something may have changed for those who wait: has them told, soon enough and not too often."""
    state.notices_due = False
    if len(state.queue) and state.timers.when((Clock.PUBLISH, None)) is None:
        state.timers.set((Clock.PUBLISH, None), max(now, state.published_at + LEAST_INTERVAL))
