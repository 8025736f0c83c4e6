"""The waiting requests, in order, by the set of GPUs they may run on.

Tickets with the same candidates share a lane. In each lane `tickets` holds all of them, for positions,
and `ready` those that no gate keeps back, for the scheduler, which only ever looks at lane heads.
"""

import heapq
from collections import Counter
from collections.abc import Iterator

from gpuarbiter_server.core.ticket import Entry, Gate, Lane, Ticket


class WaitQueue:
    """All waiting tickets."""

    def __init__(self) -> None:
        self._lanes: dict[frozenset[str], Lane] = {}
        # By the key of a GPU, of those that have any.
        self._lengths: Counter[str] = Counter()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """The lanes that have tickets."""
        return tuple(self._lanes.values())

    def add(self, ticket: Ticket, order: float) -> None:
        """Puts a ticket into the queue, and at the scheduler's disposal."""
        keys = frozenset(gpu.key for gpu in ticket.gpus)
        lane = self._lanes.get(keys)
        if lane is None:
            lane = self._lanes[keys] = Lane(keys)
        ticket.lane = lane
        ticket.entry = (order, ticket.number, ticket)
        lane.tickets.add(ticket.entry)
        lane.ready.add(ticket.entry)
        self._lengths.update(keys)
        self._size += 1

    def remove(self, ticket: Ticket) -> None:
        """Takes a ticket out."""
        lane, entry = _place(ticket)
        lane.tickets.remove(entry)
        if ticket.gate is None:
            lane.ready.remove(entry)
        else:
            ticket.gate.drop(entry)
        ticket.entry = ticket.lane = ticket.gate = None
        self._lengths.subtract(lane.keys)
        self._size -= 1
        if not lane.tickets:
            del self._lanes[lane.keys]

    def park(self, ticket: Ticket, gate: Gate) -> None:
        """Keeps a ready ticket back until its gate opens; it keeps its position."""
        lane, entry = _place(ticket)
        lane.ready.remove(entry)
        ticket.gate = gate
        gate.park(entry)

    def unpark(self, ticket: Ticket) -> None:
        """Gives a parked ticket back to the scheduler."""
        lane, entry = _place(ticket)
        gate, ticket.gate = ticket.gate, None
        if gate is None:
            raise ValueError(f"request {ticket.key.request_id} is not kept back by any gate")
        gate.drop(entry)
        lane.ready.add(entry)

    def position(self, ticket: Ticket) -> int:
        """1 is the head; counts those ahead that share a candidate with this one."""
        home, entry = _place(ticket)
        return 1 + sum(
            lane.tickets.rank(entry)
            for lane in self._lanes.values()
            if lane is home or not lane.keys.isdisjoint(home.keys)
        )

    def length(self, key: str) -> int:
        """Tickets that have this GPU among their candidates."""
        return self._lengths[key]

    def in_order(self) -> Iterator[Ticket]:
        """All tickets, in the order of the queue."""
        for entry in heapq.merge(*(lane.tickets for lane in self._lanes.values())):
            yield entry[2]


def _place(ticket: Ticket) -> tuple[Lane, Entry]:
    """Where a queued ticket stands."""
    if ticket.lane is None or ticket.entry is None:
        raise ValueError(f"request {ticket.key.request_id} is not in the queue")
    return ticket.lane, ticket.entry
