"""What keeps a ticket from taking part in the scheduling, whatever room there is.

A gated ticket never holds others back. The scheduler parks a ticket when it reaches it and finds its
gate closed; whoever opens the gate gives the parked ones back, so that a crowd behind a closed gate
costs nothing. Each gate keeps what it parked in the order of the queue.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from gpuarbiter_server.core.model import Identity, WaitReason
from gpuarbiter_server.core.ordered import OrderedList

if TYPE_CHECKING:
    from gpuarbiter_server.core.waitqueue import Entry, Ticket


def gather(lists: Iterable[OrderedList["Entry"]]) -> Iterator["Entry"]:
    """The entries of several ordered lists in one order."""
    return heapq.merge(*lists)


class Gate:
    """A reason to wait that has nothing to do with room, and who waits for it."""

    def __init__(self, reason: WaitReason) -> None:
        self.reason = reason
        self.parked: OrderedList[Entry] = OrderedList()

    def park(self, entry: "Entry") -> None:
        """Keeps a ticket."""
        self.parked.add(entry)

    def drop(self, entry: "Entry") -> None:
        """Lets go of a ticket."""
        self.parked.remove(entry)

    def first(self, count: int) -> list["Ticket"]:
        """The first so many of the parked tickets."""
        return [entry[2] for entry, _ in zip(self.parked, range(count), strict=False)]


class LimitGate(Gate):
    """Open while fewer than a limit of its leases are held."""

    def __init__(self) -> None:
        super().__init__(WaitReason.CONCURRENCY_LIMIT)
        self.held = 0


class Group(Gate):
    """A sequence: open for an index as long as no lower one waits or is held."""

    def __init__(self) -> None:
        super().__init__(WaitReason.SEQUENCE)
        self._members: Counter[int] = Counter()
        self._indices: list[int] = []
        self._by_index: dict[int, OrderedList[Entry]] = {}

    @property
    def lowest(self) -> int | None:
        """The lowest index that waits or is held; None when nothing is left of the group."""
        while self._indices and not self._members[self._indices[0]]:
            del self._members[heapq.heappop(self._indices)]
        return self._indices[0] if self._indices else None

    def enter(self, index: int) -> None:
        """A request of this index has come."""
        if index not in self._members:
            heapq.heappush(self._indices, index)
        self._members[index] += 1

    def leave(self, index: int) -> list["Ticket"]:
        """A request of this index is done with; returns the tickets whose turn has come."""
        self._members[index] -= 1
        lowest = self.lowest
        if lowest is None or lowest not in self._by_index:
            return []
        return [entry[2] for entry in self._by_index[lowest]]

    def park(self, entry: "Entry") -> None:
        """Keeps a ticket, by its index."""
        self._by_index.setdefault(_index(entry), OrderedList()).add(entry)

    def drop(self, entry: "Entry") -> None:
        """Lets go of a ticket."""
        index = _index(entry)
        self._by_index[index].remove(entry)
        if not self._by_index[index]:
            del self._by_index[index]


def _index(entry: "Entry") -> int:
    sequence = entry[2].request.sequence
    return sequence.index if sequence else 0


GroupKey = tuple[Identity, str, str]
Name = TypeVar("Name", str, Identity)


class Gates:
    """Every gate there is, and which of them are closed to a ticket."""

    def __init__(self) -> None:
        # For tickets whose stream is gone: they wait to be joined, and are granted nothing.
        self.absent = Gate(WaitReason.UNSPECIFIED)
        # For tickets with too few candidates in service; the reasons differ, the opening does not.
        self.draining = Gate(WaitReason.DRAINING)
        self.unhealthy = Gate(WaitReason.GPU_UNHEALTHY)
        self._tasks: dict[str, LimitGate] = {}
        self._clients: dict[Identity, LimitGate] = {}
        self._groups: dict[GroupKey, Group] = {}

    def closed(self, ticket: "Ticket", leases_per_client: int) -> Gate | None:
        """The first gate that keeps this ticket back."""
        if ticket.call is None:
            return self.absent
        unavailable = self._unavailable(ticket)
        if unavailable is not None:
            return unavailable
        sequence = ticket.request.sequence
        if sequence is not None:
            group = self._groups[_group_key(ticket)]
            if group.lowest is not None and sequence.index > group.lowest:
                return group
        return self._limited(self._tasks.get(ticket.request.task_type), ticket.terms.max_concurrent) or self._limited(
            self._clients.get(ticket.key.identity), leases_per_client
        )

    def leases_of(self, identity: Identity) -> int:
        """How many leases a client holds."""
        gate = self._clients.get(identity)
        return gate.held if gate else 0

    def enter(self, ticket: "Ticket") -> None:
        """A request has come."""
        if ticket.request.sequence is not None:
            self._groups.setdefault(_group_key(ticket), Group()).enter(ticket.request.sequence.index)

    def granted(self, ticket: "Ticket") -> None:
        """A lease was granted."""
        self._tasks.setdefault(ticket.request.task_type, LimitGate()).held += 1
        self._clients.setdefault(ticket.key.identity, LimitGate()).held += 1

    def returned(self, ticket: "Ticket") -> list["Ticket"]:
        """A grant was taken back, and its request waits again; returns the tickets that its slots could serve."""
        self._tasks[ticket.request.task_type].held -= 1
        self._clients[ticket.key.identity].held -= 1
        return self._next_in_line(ticket)

    def ended(self, ticket: "Ticket") -> list["Ticket"]:
        """A lease is over; returns the tickets that need not wait for it any more."""
        self._tasks[ticket.request.task_type].held -= 1
        self._clients[ticket.key.identity].held -= 1
        return self.left(ticket)

    def left(self, ticket: "Ticket") -> list["Ticket"]:
        """A request is done with, held or not; returns the tickets whose turn may have come.

        Each free slot of a limit has given one parked ticket back. When that one leaves without taking
        the slot, the next is given back in its place.
        """
        freed = self._next_in_line(ticket)
        if ticket.request.sequence is not None:
            key = _group_key(ticket)
            group = self._groups[key]
            freed += group.leave(ticket.request.sequence.index)
            if group.lowest is None:
                del self._groups[key]
        return freed

    def _next_in_line(self, ticket: "Ticket") -> list["Ticket"]:
        return _first_of(self._tasks, ticket.request.task_type) + _first_of(self._clients, ticket.key.identity)

    def reopened(self) -> list["Ticket"]:
        """Everyone who is parked for want of GPUs in service or because of a limit that may have changed."""
        gates: list[Gate] = [self.draining, self.unhealthy, *self._tasks.values(), *self._clients.values()]
        return [ticket for gate in gates for ticket in gate.first(len(gate.parked))]

    def _unavailable(self, ticket: "Ticket") -> Gate | None:
        healthy = sum(gpu.lost is None for gpu in ticket.gpus)
        if healthy < ticket.request.gpu.count:
            return self.unhealthy
        in_service = sum(gpu.lost is None and gpu.cordon is None for gpu in ticket.gpus)
        return self.draining if in_service < ticket.request.gpu.count else None

    def _limited(self, gate: LimitGate | None, limit: int) -> LimitGate | None:
        return gate if gate is not None and limit and gate.held >= limit else None


def _first_of(gates: dict[Name, LimitGate], name: Name) -> list["Ticket"]:
    """The first that is parked at a gate; a gate that nobody needs is forgotten."""
    gate = gates.get(name)
    if gate is None:
        return []
    if not gate.held and not gate.parked:
        del gates[name]
    return gate.first(1)


def _group_key(ticket: "Ticket") -> GroupKey:
    sequence = ticket.request.sequence
    return (ticket.key.identity, ticket.request.task_type, sequence.group if sequence else "")
