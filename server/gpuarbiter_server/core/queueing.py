"""Into the queue and out of it, with the clocks of the wait; who a request belongs to stays as it is."""

from gpuarbiter_server.core.fairness import order_key
from gpuarbiter_server.core.state import State
from gpuarbiter_server.core.ticket import Ticket
from gpuarbiter_server.core.timers import Clock


def enter_queue(state: State, ticket: Ticket) -> None:
    """Puts a ticket into the queue, at the place that its priority and arrival give it."""
    state.queue.add(ticket, order_key(ticket.terms.priority, ticket.enqueued_at, state.settings.aging))
    state.waiting[ticket.key.identity] += 1
    state.changed = True


def start_wait(state: State, ticket: Ticket, now: float) -> None:
    """Starts the clock of the wait."""
    if ticket.deadline is not None:
        state.timers.set((Clock.WAIT, ticket), max(now, ticket.deadline))


def leave_queue(state: State, ticket: Ticket) -> None:
    """Takes a ticket out of the queue and stops its clocks."""
    state.queue.remove(ticket)
    state.waiting[ticket.key.identity] -= 1
    if not state.waiting[ticket.key.identity]:
        del state.waiting[ticket.key.identity]
    for clock in (Clock.WAIT, Clock.ABSENCE, Clock.NOTICE):
        state.timers.cancel((clock, ticket))
    state.changed = True
