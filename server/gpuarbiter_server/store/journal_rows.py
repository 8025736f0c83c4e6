"""The rows of an open journal: turns changes into statements, and keeps the checksum over all of them.

Law: what is known here is what the open transaction has made of the rows. When one fails this is thrown away,
and built anew from what can be read. A change costs the same however many rows there are.
"""

import sqlite3
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from gpuarbiter_server.core.leases import KEPT_RECORDS, KEPT_SECONDS
from gpuarbiter_server.core.model import RequestKey
from gpuarbiter_server.core.records import (
    Change,
    Closed,
    EndedRecord,
    GpuSaved,
    LeaseDropped,
    LeaseSaved,
    Rewritten,
    TokensReserved,
)
from gpuarbiter_server.store.journal_check import Contents
from gpuarbiter_server.store.journal_schema import ENDED, GPUS, LEASES, META, META_ROW, TABLES, Meta, Table

T = TypeVar("T")

# Ended records are forgotten by so many at once.
_LOT = 256


class _Place(NamedTuple):
    """Where a row is, and its checksum."""

    number: int
    mark: int


class Rows:
    """What a transaction does to the rows. `meta` is written with the next `write_meta`."""

    def __init__(self, connection: sqlite3.Connection, contents: Contents, meta: Meta) -> None:
        self.meta = meta
        self._execute = connection.execute
        self._leases = {row.value.lease_id: _Place(row.number, row.mark) for row in contents.leases}
        self._gpus = {row.value.name: _Place(row.number, row.mark) for row in contents.gpus}
        self._last_gpu = max((row.number for row in contents.gpus), default=0)
        # How many, the number of the last, and of the last of those that need not be kept any more.
        self._ended, self._last_ended, self._expired_until = 0, 0, contents.expired_until()
        # Requests that ended without a lease, oldest first: of each, the last end counts.
        self._unnamed: OrderedDict[RequestKey, _Place] = OrderedDict()
        # The ended records up to this number ended at this time or before; oldest first.
        self._lots: deque[tuple[int, float]] = deque()
        for row in contents.ended:
            self._note_ended(row.value, _Place(row.number, row.mark))
        self._apply: dict[type[Change], Callable[[Any], None]] = {
            LeaseSaved: self._lease_saved,
            LeaseDropped: self._lease_dropped,
            Closed: self._closed,
            GpuSaved: self._gpu_saved,
            TokensReserved: self._tokens_reserved,
            Rewritten: self._rewritten,
        }

    @property
    def empty(self) -> bool:
        """Whether nothing is kept."""
        return not self.meta.rows

    def apply(self, change: Change) -> None:
        """Makes a change."""
        self._apply[type(change)](change)

    def write_meta(self) -> None:
        """Makes the row of meta tell what has become of the others."""
        self._execute(META.put, META.encode(META_ROW, self.meta))

    def reserve(self, tokens_until: int) -> None:
        """Notes that tokens up to this one may have been granted; that never falls."""
        self.meta.tokens_until = max(self.meta.tokens_until, tokens_until)

    def count_by(self, boot_id: str, pid_namespace: int) -> None:
        """From here on times and pids are those of this start of the machine; those of before mean nothing to it."""
        if boot_id != self.meta.boot_id:
            self.meta.earlier_until = self._last_ended
            self._lots.clear()
            # At the latest when the machine was started, where its clock is 0.
            self._lots.append((self._last_ended, 0.0))
        self.meta.boot_id, self.meta.pid_namespace = boot_id, pid_namespace

    def forget_expired(self) -> None:
        """Takes out what was too old already when the journal was read."""
        self._forget_until(self._expired_until)

    def _lease_saved(self, change: LeaseSaved) -> None:
        lease = change.lease
        self._leases[lease.lease_id] = self._put(LEASES, lease.token, lease, self._leases.get(lease.lease_id))

    def _lease_dropped(self, change: LeaseDropped) -> None:
        self._remove_lease(change.lease_id)

    def _closed(self, change: Closed) -> None:
        record = change.record
        self._remove_lease(record.lease_id)
        unnamed = self._unnamed.pop(record.key, None)
        if unnamed is not None:
            self._remove(ENDED, unnamed)
            self._ended -= 1
        self._note_ended(record, self._put(ENDED, self._last_ended + 1, record, None))
        if self._last_ended % _LOT == 0:
            self._forget_old(record.ended_at)

    def _gpu_saved(self, change: GpuSaved) -> None:
        gpu = change.gpu
        before = self._gpus.get(gpu.name)
        if before is None:
            self._last_gpu += 1
        number = self._last_gpu if before is None else before.number
        self._gpus[gpu.name] = self._put(GPUS, number, gpu, before)

    def _tokens_reserved(self, change: TokensReserved) -> None:
        self.reserve(change.until)

    def _rewritten(self, change: Rewritten) -> None:
        for table in TABLES:
            self._execute(table.delete_all)
        for known in (self._leases, self._gpus, self._unnamed, self._lots):
            known.clear()
        self._last_gpu = self._ended = self._last_ended = self._expired_until = 0
        meta = self.meta
        meta.rows = meta.mix = meta.earlier_until = 0
        self.reserve(change.tokens_until)
        for lease in change.saved.leases:
            self._lease_saved(LeaseSaved(lease))
        for record in change.saved.ended:
            self._closed(Closed(record))
        for gpu in change.saved.gpus:
            self._gpu_saved(GpuSaved(gpu))

    def _note_ended(self, record: EndedRecord, place: _Place) -> None:
        self._ended += 1
        self._last_ended = place.number
        if not record.lease_id:
            self._unnamed[record.key] = place
        if place.number % _LOT == 0:
            self._lots.append((place.number, record.ended_at))

    def _forget_old(self, now: float) -> None:
        lots = self._lots
        # A lot goes once none of it has to be kept.
        while lots and (now - lots[0][1] > KEPT_SECONDS or self._ended >= KEPT_RECORDS + _LOT):
            self._forget_until(lots.popleft()[0])

    def _forget_until(self, last: int) -> None:
        for (mark,) in self._execute("SELECT mark FROM ended WHERE id <= ?", (last,)):
            self._ended -= 1
            self._take_out(mark)
        self._execute("DELETE FROM ended WHERE id <= ?", (last,))
        while self._unnamed and next(iter(self._unnamed.values())).number <= last:
            self._unnamed.popitem(last=False)

    def _remove_lease(self, lease_id: str) -> None:
        place = self._leases.pop(lease_id, None)
        if place is not None:
            self._remove(LEASES, place)

    def _put(self, table: Table[T], number: int, value: T, before: _Place | None) -> _Place:
        row = table.encode(number, value)
        self._execute(table.put, row)
        if before is not None:
            self._take_out(before.mark)
        self.meta.rows += 1
        self.meta.mix ^= row[2]
        return _Place(number, row[2])

    def _remove(self, table: Table[Any], place: _Place) -> None:
        self._execute(table.delete, (place.number,))
        self._take_out(place.mark)

    def _take_out(self, mark: int) -> None:
        self.meta.rows -= 1
        self.meta.mix ^= mark
