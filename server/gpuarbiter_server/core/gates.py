"""What keeps a ticket from taking part in the scheduling, whatever room there is.

A gated ticket never holds others back. The scheduler parks a ticket when it reaches it and finds its
gate closed; whoever opens the gate gives parked ones back, as many as can matter, so that a crowd behind
a closed gate costs nothing. Each gate keeps what it parked in the order of the queue.
"""

from collections import Counter
from collections.abc import Hashable
from itertools import islice
from typing import TypeVar

from gpuarbiter_server.core.model import Identity, WaitReason
from gpuarbiter_server.core.ordered import OrderedList
from gpuarbiter_server.core.policy import Settings
from gpuarbiter_server.core.ticket import Gate, Lane, Ticket


class LimitGate(Gate):
    """Open while fewer than a limit of its leases are held.

    A free slot lets the first of each lane through: whoever lacks room holds back its own lane only. When
    that one turns out to be kept back by another gate, the next of its lane gets the chance.
    """

    def __init__(self) -> None:
        super().__init__(WaitReason.CONCURRENCY_LIMIT)
        self.held = 0

    def closed(self, limit: int) -> bool:
        """Whether as many leases are held as may be."""
        return self.held >= limit

    def first(self) -> list[Ticket]:
        """The first of each lane."""
        return [shelf.first()[2] for shelf in self._shelves.values()]

    def first_of(self, lane: "Lane | None") -> list[Ticket]:
        """The first of one lane."""
        return [self._shelves[lane].first()[2]] if lane in self._shelves else []

    def _shelf_of(self, ticket: Ticket) -> Hashable:
        return ticket.lane


class Group(Gate):
    """A sequence: open for an index as long as no lower one waits or is held."""

    def __init__(self) -> None:
        super().__init__(WaitReason.SEQUENCE)
        self._members: Counter[int] = Counter()
        self._indices: OrderedList[tuple[int]] = OrderedList()

    @property
    def lowest(self) -> int | None:
        """The lowest index that waits or is held; None when nothing is left of the group."""
        return self._indices.first()[0] if self._indices else None

    def enter(self, index: int) -> None:
        """A request of this index has come."""
        if not self._members[index]:
            self._indices.add((index,))
        self._members[index] += 1

    def leave(self, index: int) -> list[Ticket]:
        """A request of this index is done with; returns the tickets whose turn has come."""
        self._members[index] -= 1
        if not self._members[index]:
            del self._members[index]
            self._indices.remove((index,))
        return [entry[2] for entry in self._shelves.get(self.lowest, ())]

    def _shelf_of(self, ticket: Ticket) -> Hashable:
        return _index(ticket)


def _index(ticket: Ticket) -> int:
    sequence = ticket.request.sequence
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

    def closed(self, ticket: Ticket, settings: Settings) -> Gate | None:
        """The first gate that keeps this ticket back."""
        if ticket.call is None:
            return self.absent
        unavailable = self._unavailable(ticket)
        if unavailable is not None:
            return unavailable
        if ticket.request.sequence is not None:
            group = self._groups[_group_key(ticket)]
            if group.lowest is not None and _index(ticket) > group.lowest:
                return group
        for gate, limit in self._limits(ticket, settings):
            if gate.closed(limit):
                return gate
        return None

    def passed_over(self, ticket: Ticket, settings: Settings) -> list[Ticket]:
        """Who gets the chance of a ticket that has just been parked: the next of its lane at its open gates."""
        open_ = [gate for gate, limit in self._limits(ticket, settings) if not gate.closed(limit)]
        return [waiting for gate in open_ for waiting in gate.first_of(ticket.lane)]

    def leases_of(self, identity: Identity) -> int:
        """How many leases a client holds."""
        gate = self._clients.get(identity)
        return gate.held if gate else 0

    def enter(self, ticket: Ticket) -> None:
        """A request has come."""
        if ticket.request.sequence is not None:
            self._groups.setdefault(_group_key(ticket), Group()).enter(ticket.request.sequence.index)

    def granted(self, ticket: Ticket) -> None:
        """A lease was granted."""
        self._tasks.setdefault(ticket.request.task_type, LimitGate()).held += 1
        self._clients.setdefault(ticket.key.identity, LimitGate()).held += 1

    def returned(self, ticket: Ticket) -> list[Ticket]:
        """A grant was taken back, and its request waits again; returns the tickets that its slots could serve."""
        self._tasks[ticket.request.task_type].held -= 1
        self._clients[ticket.key.identity].held -= 1
        return self.stepped_back(ticket)

    def ended(self, ticket: Ticket) -> list[Ticket]:
        """A lease is over; returns the tickets that need not wait for it any more."""
        self._tasks[ticket.request.task_type].held -= 1
        self._clients[ticket.key.identity].held -= 1
        return self.left(ticket)

    def left(self, ticket: Ticket) -> list[Ticket]:
        """A request is done with, held or not; returns the tickets whose turn may have come."""
        freed = self.stepped_back(ticket)
        if ticket.request.sequence is not None:
            key = _group_key(ticket)
            group = self._groups[key]
            freed += group.leave(ticket.request.sequence.index)
            if group.lowest is None:
                del self._groups[key]
        return freed

    def stepped_back(self, ticket: Ticket) -> list[Ticket]:
        """A ticket leaves the slots that it holds, or may have been let through for, to others: returns the next."""
        return _first_of(self._tasks, ticket.request.task_type) + _first_of(self._clients, ticket.key.identity)

    def reopened(self) -> list[Ticket]:
        """Everyone who is parked for want of GPUs in service or because of a limit that may have changed."""
        gates: list[Gate] = [self.draining, self.unhealthy, *self._tasks.values(), *self._clients.values()]
        return [ticket for gate in gates for ticket in gate.parked()]

    def _unavailable(self, ticket: Ticket) -> Gate | None:
        count = ticket.request.gpu.count
        in_service = (gpu for gpu in ticket.gpus if gpu.lost is None and gpu.cordon is None)
        if len(tuple(islice(in_service, count))) == count:
            return None
        healthy = sum(gpu.lost is None for gpu in ticket.gpus)
        return self.draining if healthy >= count else self.unhealthy

    def _limits(self, ticket: Ticket, settings: Settings) -> list[tuple[LimitGate, int]]:
        """The limits that this ticket is under, as they are now, where anyone is under them."""
        limits = []
        of_task = settings.policy(ticket.request.task_type).max_concurrent_leases
        if of_task and (task := self._tasks.get(ticket.request.task_type)) is not None:
            limits.append((task, of_task))
        of_client = settings.leases_per_client
        if of_client and (client := self._clients.get(ticket.key.identity)) is not None:
            limits.append((client, of_client))
        return limits


def _first_of(gates: dict[Name, LimitGate], name: Name) -> list[Ticket]:
    """The first of each lane that is parked at a gate; a gate that nobody needs is forgotten."""
    gate = gates.get(name)
    if gate is None:
        return []
    if not gate.held and gate.empty:
        del gates[name]
    return gate.first()


def _group_key(ticket: Ticket) -> GroupKey:
    sequence = ticket.request.sequence
    return (ticket.key.identity, ticket.request.task_type, sequence.group if sequence else "")
