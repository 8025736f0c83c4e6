"""The waiting requests, in order, by the set of GPUs they may run on.

Tickets with the same candidates share a lane. In each lane `tickets` holds all of them, for positions,
and `ready` those that no gate keeps back, for the scheduler, which only ever looks at lane heads.
"""

from collections.abc import Iterator

from gpuarbiter_server.core.events import Call
from gpuarbiter_server.core.gates import Gate, gather
from gpuarbiter_server.core.ledger import Gpu
from gpuarbiter_server.core.model import AcquireRequest, ProcessId, RequestKey, WaitReason
from gpuarbiter_server.core.ordered import OrderedList
from gpuarbiter_server.core.terms import Terms

Entry = tuple[float, int, "Ticket"]


class Ticket:
    """A request from its arrival to its grant or its end."""

    __slots__ = (
        "call",
        "enqueued_at",
        "entry",
        "gate",
        "gpus",
        "key",
        "lane",
        "named",
        "number",
        "request",
        "terms",
        "told_at",
        "told_position",
        "told_reason",
    )

    def __init__(
        self, number: int, key: RequestKey, request: AcquireRequest, terms: Terms, call: Call, now: float
    ) -> None:
        # Numbers arrivals: first come, first served within equal priority.
        self.number = number
        self.key = key
        # Whether the caller chose the request id, and can join by it.
        self.named = bool(request.request_id)
        self.request = request
        self.terms = terms
        # None: its stream is gone, and it waits to be joined.
        self.call: Call | None = call
        self.gpus: tuple[Gpu, ...] = ()
        self.enqueued_at = now
        # Set while it is in the queue.
        self.entry: Entry | None = None
        self.lane: Lane | None = None
        # What keeps it from taking part in the scheduling.
        self.gate: Gate | None = None
        # What the client was told last.
        self.told_at = now
        self.told_position = 0
        self.told_reason = WaitReason.UNSPECIFIED

    @property
    def listener(self) -> Call | None:
        """The stream that hears of it."""
        return self.call

    @property
    def process(self) -> ProcessId | None:
        """The holder's process, where the arbiter has proof of it."""
        return self.request.holder.process

    @property
    def deadline(self) -> float | None:
        """When its wait is over; None: never."""
        return None if self.terms.max_wait is None else self.enqueued_at + self.terms.max_wait


class Lane:
    """The tickets that may run on the same GPUs."""

    __slots__ = ("keys", "ready", "tickets")

    def __init__(self, keys: frozenset[str]) -> None:
        self.keys = keys
        self.tickets: OrderedList[Entry] = OrderedList()
        self.ready: OrderedList[Entry] = OrderedList()


class WaitQueue:
    """All waiting tickets."""

    def __init__(self) -> None:
        self._lanes: dict[frozenset[str], Lane] = {}
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
        return sum(len(lane.tickets) for lane in self._lanes.values() if key in lane.keys)

    def in_order(self) -> Iterator[Ticket]:
        """All tickets, in the order of the queue."""
        for entry in gather([lane.tickets for lane in self._lanes.values()]):
            yield entry[2]


def _place(ticket: Ticket) -> tuple[Lane, Entry]:
    """Where a queued ticket stands."""
    if ticket.lane is None or ticket.entry is None:
        raise ValueError(f"request {ticket.key.request_id} is not in the queue")
    return ticket.lane, ticket.entry
