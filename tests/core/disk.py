"""A disk for the journal of a world: what is on it for sure, what is on its way, and how it is read after a crash.

Changes that came of one event are written together or not at all. What was on its way when the power went
may be there or not, in its order: as much of it as the cut leaves whole.
"""

from collections import deque
from collections.abc import Sequence
from copy import copy

from gpuarbiter_server.core.records import (
    Change,
    Closed,
    EndedRecord,
    GpuSaved,
    LeaseDropped,
    LeaseSaved,
    Rewritten,
    Saved,
    SavedGpu,
    SavedLease,
    TokensReserved,
)


class Replayed:
    """What the changes come to, one after the other."""

    def __init__(self, tokens_until: int) -> None:
        self.tokens_until = tokens_until
        self.leases: dict[str, SavedLease] = {}
        self.ended: list[EndedRecord] = []
        self.gpus: dict[str, SavedGpu] = {}

    def __copy__(self) -> "Replayed":
        twin = Replayed(self.tokens_until)
        twin.leases, twin.ended, twin.gpus = dict(self.leases), list(self.ended), dict(self.gpus)
        return twin

    def apply(self, change: Change) -> None:
        match change:
            case LeaseSaved(lease):
                self.leases[lease.lease_id] = lease
            case LeaseDropped(lease_id):
                self.leases.pop(lease_id, None)
            case Closed(record):
                self.leases.pop(record.lease_id, None)
                self.ended.append(record)
            case GpuSaved(gpu):
                self.gpus[gpu.name] = gpu
            case TokensReserved(until):
                self.tokens_until = until
            case Rewritten(saved, tokens_until):
                self.__init__(tokens_until)  # type: ignore[misc]
                self.leases = {lease.lease_id: lease for lease in saved.leases}
                self.ended = list(saved.ended)
                self.gpus = {gpu.name: gpu for gpu in saved.gpus}

    def saved(self) -> Saved:
        """In the form that a start reads."""
        return Saved(tuple(self.leases.values()), tuple(self.ended), tuple(self.gpus.values()))


class Disk:
    """What is written, and what is on its way."""

    def __init__(self, tokens_until: int) -> None:
        self.written = Replayed(tokens_until)
        # What will be there once all that is on its way is.
        self.coming = Replayed(tokens_until)
        self.pending: deque[tuple[int, Sequence[Change]]] = deque()
        # How long the oldest of them has been.
        self.pending_since = 0.0
        # From a failure until the journal is open again, nothing is taken.
        self.taking = True

    def take(self, number: int, changes: Sequence[Change], now: float) -> None:
        """Changes of one event; number: that of the last."""
        if self.taking:
            if not self.pending:
                self.pending_since = now
            self.pending.append((number, changes))
            for change in changes:
                self.coming.apply(change)

    def write(self, count: int | None = None) -> int:
        """Writes so many of the pending, or all; returns the number of the last that is written."""
        number = 0
        for _ in range(len(self.pending) if count is None else count):
            number, changes = self.pending.popleft()
            for change in changes:
                self.written.apply(change)
        return number

    def cut(self, survive: int) -> None:
        """So many of the pending are there after all; the rest never was."""
        self.write(min(survive, len(self.pending)))
        self.pending.clear()
        self.coming = copy(self.written)

    def begin(self, tokens_until: int) -> None:
        """A new start reads it, and reserves its first tokens."""
        self.written.tokens_until = self.coming.tokens_until = tokens_until
        self.taking = True
