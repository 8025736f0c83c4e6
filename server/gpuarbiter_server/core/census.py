"""The state in figures, for scrapes: counted by what observers tell apart. Reads everything, changes nothing.

Law: each look takes one pass and makes no copy of what it looks at, so that a crowd costs its counting and no more.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

from gpuarbiter_server.core.model import LeaseState, WaitReason
from gpuarbiter_server.core.snapshots import gpu_view, lease_view, ticket_view
from gpuarbiter_server.core.state import State
from gpuarbiter_server.core.views import GpuView, LeaseView, TicketView

# What a task type is called; several may share a name.
Name = Callable[[str], str]


class Waiters(NamedTuple):
    """Waiting requests that are told apart by nothing."""

    # Empty where nobody looked at each: far back in a long queue.
    task: str
    # Any of these will do.
    gpus: frozenset[str]
    # As their clients were told last.
    reason: WaitReason
    number: int
    # Monotonic seconds; None where nobody looked.
    oldest_at: float | None


class Leases(NamedTuple):
    """Live leases on one GPU that are told apart by nothing."""

    task: str
    gpu: str
    state: LeaseState
    number: int
    # Monotonic seconds.
    oldest_at: float
    # Bytes of those whose memory is seen, and declared by the others; None where there are none.
    seen: int | None
    declared: int | None


class Census:
    """A look at the state; `now` is when it was asked for."""

    def __init__(self, state: State, now: float) -> None:
        self._state = state
        self.now = now

    @property
    def nvml_up(self) -> bool:
        """Whether NVML answers."""
        return self._state.nvml_up

    def gpus(self) -> tuple[GpuView, ...]:
        """Each GPU."""
        return tuple(gpu_view(self._state, gpu, self.now) for gpu in self._state.gpus.values())

    def lease_views(self, most: int) -> tuple[LeaseView, ...]:
        """Live leases one by one, so many at most."""
        return tuple(self.each_lease(most))

    def each_lease(self, most: int) -> Iterator[LeaseView]:
        """The same, and others may have turns between any two: who has ended meanwhile is left out."""
        for lease in list(islice(self._state.leases.live.values(), most)):
            if self.is_live(lease.lease_id):
                yield lease_view(self._state, lease, self.now)

    def each_ticket(self, most: int) -> Iterator[TicketView]:
        """Waiting requests in the order of the queue, in the same way."""
        for ticket in list(islice(self._state.queue.in_order(), most)):
            if ticket.lane is not None:
                yield ticket_view(self._state, ticket)

    def is_live(self, lease_id: str) -> bool:
        """Whether there is such a lease."""
        return lease_id in self._state.leases.live

    @property
    def lease_count(self) -> int:
        """Live leases."""
        return len(self._state.leases.live)

    @property
    def queue_length(self) -> int:
        """Waiting requests."""
        return len(self._state.queue)

    @property
    def shutting_down(self) -> bool:
        """Whether the arbiter takes no new requests."""
        return self._state.shutting_down

    @property
    def journal_fault(self) -> str:
        """Why nothing can be granted for want of a journal; empty while it can be written."""
        return self._state.journal.fault or ""

    def leases(self, name: Name) -> list[Leases]:
        """Live leases, counted; one on several GPUs counts on each."""
        groups: dict[tuple[str, str, LeaseState], Leases] = {}
        for lease in self._state.leases.live.values():
            task, state, granted_at = name(lease.ticket.request.task_type), lease.state, lease.granted_at
            for gpu, share in lease.shares:
                key = task, gpu.key, state
                before = groups.get(key)
                seen, declared = share.observed, share.declared if share.observed is None else None
                if before is None:
                    groups[key] = Leases(*key, 1, granted_at, seen, declared)
                else:
                    groups[key] = Leases(
                        *key,
                        before.number + 1,
                        min(before.oldest_at, granted_at),
                        _sum(before.seen, seen),
                        _sum(before.declared, declared),
                    )
        return list(groups.values())

    def waiters(self, name: Name, most: int) -> list[Waiters]:
        """Waiting requests, counted; the first so many are told apart, the others by where they wait."""
        groups: dict[tuple[str, frozenset[str], WaitReason], list[float]] = {}
        looked_at: dict[frozenset[str], int] = {}
        for ticket in islice(self._state.queue.in_order(), most):
            assert ticket.lane is not None
            keys = ticket.lane.keys
            looked_at[keys] = looked_at.get(keys, 0) + 1
            group = name(ticket.request.task_type), keys, ticket.told_reason or WaitReason.QUEUE_ORDER
            number_and_oldest = groups.setdefault(group, [0, ticket.enqueued_at])
            number_and_oldest[0] += 1
            number_and_oldest[1] = min(number_and_oldest[1], ticket.enqueued_at)
        behind = [
            Waiters("", lane.keys, WaitReason.QUEUE_ORDER, len(lane.tickets) - looked_at.get(lane.keys, 0), None)
            for lane in self._state.queue.lanes
        ]
        told_apart = [Waiters(*group, int(number), oldest) for group, (number, oldest) in groups.items()]
        return [*told_apart, *(each for each in behind if each.number)]


def _sum(one: int | None, other: int | None) -> int | None:
    return other if one is None else one + (other or 0)
