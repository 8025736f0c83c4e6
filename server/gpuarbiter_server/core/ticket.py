"""A waiting request as data: its ticket, the lane that it stands in, and the gate that keeps it back."""

from collections.abc import Hashable

from gpuarbiter_server.core.events import Call
from gpuarbiter_server.core.ledger import Gpu
from gpuarbiter_server.core.model import AcquireRequest, ProcessId, RequestKey, WaitReason
from gpuarbiter_server.core.ordered import OrderedList
from gpuarbiter_server.core.terms import Terms

# What orders a ticket, its number, and the ticket itself.
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
        "told_call",
        "told_position",
        "told_reason",
    )

    def __init__(
        self, number: int, key: RequestKey, request: AcquireRequest, terms: Terms, call: Call | None, now: float
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
        self.told_call: Call | None = None
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


class Gate:
    """A reason to wait that has nothing to do with room, and who waits for it, sorted into shelves."""

    def __init__(self, reason: WaitReason) -> None:
        self.reason = reason
        self._shelves: dict[Hashable, OrderedList[Entry]] = {}

    @property
    def empty(self) -> bool:
        """Whether nobody waits here."""
        return not self._shelves

    def park(self, entry: Entry) -> None:
        """Keeps a ticket."""
        self._shelves.setdefault(self._shelf_of(entry[2]), OrderedList()).add(entry)

    def drop(self, entry: Entry) -> None:
        """Lets go of a ticket."""
        name = self._shelf_of(entry[2])
        self._shelves[name].remove(entry)
        if not self._shelves[name]:
            del self._shelves[name]

    def parked(self) -> list[Ticket]:
        """Everyone who waits here."""
        return [entry[2] for shelf in self._shelves.values() for entry in shelf]

    def _shelf_of(self, _ticket: Ticket) -> Hashable:
        """Tickets that are let through together, or one after the other."""
        return None
