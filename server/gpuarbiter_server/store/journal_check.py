"""Reads a journal as a whole, and tells everything that is wrong with it.

Law: it is in order only if SQLite finds it whole, each row has its checksum, all rows together are those that
were there after one commit, and every body is understood. What cannot be read is told, and never guessed.
"""

import sqlite3
from collections.abc import Callable, Hashable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import xor
from pathlib import Path
from typing import Generic, TypeVar

from gpuarbiter_server.core.leases import KEPT_RECORDS, KEPT_SECONDS
from gpuarbiter_server.core.records import EndedRecord, Saved, SavedGpu, SavedLease
from gpuarbiter_server.store.journal_file import SQLITE_FAILURES, open_to_read
from gpuarbiter_server.store.journal_schema import ENDED, GPUS, LEASES, META, META_ROW, SCHEMA, VERSION, Meta, Table

T = TypeVar("T")

# Of what SQLite's own check finds, so many are told.
_SHOWN_FAULTS = 5


@dataclass(frozen=True, slots=True)
class Row(Generic[T]):
    """A row that is as it was written."""

    number: int
    value: T
    mark: int


@dataclass(slots=True)
class Contents:
    """What a journal holds, as far as it can be read."""

    version: int | None = None
    meta: Meta | None = None
    leases: list[Row[SavedLease]] = field(default_factory=list)
    ended: list[Row[EndedRecord]] = field(default_factory=list)
    gpus: list[Row[SavedGpu]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def saved(self) -> Saved:
        """The state; what ended too long ago is no part of it any more."""
        gone = self.expired_until()
        return Saved(
            leases=tuple(row.value for row in self.leases),
            ended=tuple(row.value for row in self.ended if row.number > gone),
            gpus=tuple(row.value for row in self.gpus),
        )

    def expired_until(self) -> int:
        """The number of the last ended record that is kept no longer; 0: there is none."""
        newest = max((row.value.ended_at for row in self.ended), default=0.0)
        gone = 0
        for before, row in enumerate(self.ended):
            if len(self.ended) - before <= KEPT_RECORDS and newest - row.value.ended_at <= KEPT_SECONDS:
                break
            gone = row.number
        return gone


def read(path: Path) -> Contents:
    """Everything that is in a journal, and every problem with it; changes nothing."""
    contents = Contents()
    try:
        problem = _before_reading(path)
        if problem:
            contents.problems.append(problem)
        else:
            _read(path, contents)
    except OSError as error:
        contents.problems.append(f"it cannot be read: {error}")
    except SQLITE_FAILURES as error:
        contents.problems.append(f"SQLite cannot read it: {described(error)}")
    return contents


def described(error: BaseException) -> str:
    """An error with SQLite's name for it, which says more than its text."""
    name = getattr(error, "sqlite_errorname", "")
    return f"{error} ({name})" if name else str(error)


def _before_reading(path: Path) -> str:
    """What SQLite would take for a new database, and throw the log away for; empty: it is none."""
    with suppress(FileNotFoundError):
        return "" if path.stat().st_size else f"{path.name} is empty, and no arbiter leaves it so"
    return f"there is no {path.name}"


def _read(path: Path, contents: Contents) -> None:
    with closing(open_to_read(path)) as connection:
        # One moment, even where an arbiter writes meanwhile.
        connection.execute("BEGIN")
        contents.version = connection.execute("PRAGMA user_version").fetchone()[0]
        contents.problems += _structure(connection, contents.version)
        if contents.version <= VERSION:
            _read_rows(connection, contents)


def _structure(connection: sqlite3.Connection, version: int) -> Iterator[str]:
    """What keeps it from being a journal of this version that is whole by SQLite's own measure."""
    if version > VERSION:
        yield f"it is of version {version}, made by a newer arbiter; this one knows version {VERSION}"
        return
    found = dict(connection.execute("SELECT name, sql FROM sqlite_schema"))
    if version != VERSION or found != SCHEMA:
        yield "its tables are not those of a journal"
    if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        # SQLite would pass over the log that is beside it.
        yield "its head does not say that it has a log"
    for (fault,) in connection.execute(f"PRAGMA integrity_check({_SHOWN_FAULTS})"):
        if fault != "ok":
            yield f"SQLite's check: {' '.join(str(fault).split())}"


def _read_rows(connection: sqlite3.Connection, contents: Contents) -> None:
    problems = contents.problems
    metas = _rows(connection, META, problems, key=lambda _: META_ROW)
    contents.meta = metas[0].value if metas else None
    contents.leases = _rows(connection, LEASES, problems, key=lambda lease: lease.lease_id)
    contents.ended = _rows(connection, ENDED, problems)
    contents.gpus = _rows(connection, GPUS, problems, key=lambda gpu: gpu.key)
    if contents.meta is None:
        problems.append("the row of meta is missing")
        return
    problems += _altogether(contents, contents.meta)
    earlier = contents.meta.earlier_until
    # At the latest when the machine was started, where its clock is 0.
    contents.ended = [
        Row(row.number, replace(row.value, ended_at=0.0), row.mark) if row.number <= earlier else row
        for row in contents.ended
    ]


def _rows(
    connection: sqlite3.Connection,
    table: Table[T],
    problems: list[str],
    key: Callable[[T], Hashable] | None = None,
) -> list[Row[T]]:
    """The rows that are in order. `key`: what no two of them have in common."""
    found, keys = [], set()
    for number, body, mark in connection.execute(table.rows):
        try:
            value = table.decode(number, body, mark)
        except ValueError as error:
            problems.append(f"row {number} of {table.name}: {error}")
            continue
        if key is not None:
            name = key(value)
            if name in keys:
                problems.append(f"row {number} of {table.name}: it is there twice")
            keys.add(name)
        found.append(Row(number, value, mark))
    return found


def _altogether(contents: Contents, meta: Meta) -> Iterator[str]:
    """Whether the rows are those of one moment: a lost one, or an older one that came back, has a right checksum."""
    if meta.version != contents.version:
        yield f"its head says version {contents.version}, and its row of meta {meta.version}"
    marks = [row.mark for row in contents.leases]
    marks += [row.mark for row in contents.ended]
    marks += [row.mark for row in contents.gpus]
    if len(marks) != meta.rows:
        yield f"{len(marks)} rows can be read, and there were {meta.rows}"
    elif reduce(xor, marks, 0) != meta.mix:
        yield "its rows are not those of one moment"
