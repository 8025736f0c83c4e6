"""The history as a file: one table of events in SQLite, from which the oldest go when there are too many.

Law: one thread of one process uses it. What is committed survives a crash of the arbiter; a power cut may take
the last seconds. A number once given stays given, even when all events are gone. Each row has a checksum,
because SQLite has none in its main file; a row that is not what was written is passed over.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from pydantic import TypeAdapter

from gpuarbiter_server.core.effects import Recorded

VERSION = 1
# How long an arbiter that is about to end is waited for.
_BUSY_SECONDS = 5.0
# A checkpoint each MiB of log; the log file keeps no more than that after one.
_CHECKPOINT_PAGES = 256
_LOG_BYTES = 1024**2
# Free pages are used again; the file is made smaller only when it is this much too large, and by so much at a time.
_SLACK_BYTES = 1024**2
_SHRINK_PAGES = 512
# Events that go at a time: more than come at a time, so that what is too much becomes less.
_MOST_TO_GO = 1000

_BODY = TypeAdapter(Recorded)
# AUTOINCREMENT: the last number is kept beside the table, and so outlives the events.
_SCHEMA = """CREATE TABLE events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, mark INTEGER NOT NULL, body BLOB NOT NULL
)"""
_LAST = "SELECT (SELECT ifnull(max(seq), 0) FROM sqlite_sequence), (SELECT ifnull(max(sequence), 0) FROM events)"
_PAGE = "SELECT * FROM events WHERE sequence > ? AND sequence < ? AND time >= ? ORDER BY sequence LIMIT ?"
_FORGET = "DELETE FROM events WHERE sequence IN (SELECT sequence FROM events ORDER BY sequence LIMIT ?)"


class DamagedError(Exception):
    """The file is none of a history, or no longer one."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is kept: so many events, none older than so many seconds, in a file of so many bytes."""

    max_events: int
    max_age: float
    max_bytes: int


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """One event; time in Unix seconds."""

    sequence: int
    time: float
    recorded: Recorded


class Row(NamedTuple):
    """An event as it is in the file."""

    sequence: int
    time: float
    mark: int
    body: bytes

    def decoded(self) -> HistoryEvent | None:
        """The event; None if it is not what was written, or means nothing to this version."""
        if isinstance(self.body, bytes) and _mark(self.sequence, self.time, self.body) == self.mark:
            with suppress(ValueError):
                return HistoryEvent(self.sequence, self.time, _BODY.validate_json(self.body))
        return None


class Page(NamedTuple):
    """Some events, and the number up to which there are no others."""

    upto: int
    events: list[HistoryEvent] | list[Row]


class HistoryFile:
    """An open file. Its methods raise DamagedError, or sqlite3.Error or OSError where it cannot be used now."""

    def __init__(self, path: Path, bounds: Bounds) -> None:
        # SQLite gives the files beside it the same mode.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        self._bounds = bounds
        self._db = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_SECONDS)
        try:
            with _telling_damage(sqlite3.SQLITE_ERROR):
                _prepare(self._db)
                (self._page_bytes,) = self._one("PRAGMA page_size")
                (self._count,) = self._one("SELECT count(*) FROM events")
                # The number of the last event there ever was; 0: there was none.
                self.last = max(self._one(_LAST))
        except BaseException:
            self._db.close()
            raise

    def append(self, events: Sequence[HistoryEvent], now: float) -> bool:
        """Writes events, all or none, and lets old ones go; returns whether more have to go soon."""
        rows = [_encode(event) for event in events]
        with _telling_damage():
            self._shrink()
            with self._transaction():
                self._db.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", rows)
                count = self._count + len(rows)
                surplus = self._surplus(count, now)
                gone = self._db.execute(_FORGET, (min(surplus, _MOST_TO_GO),)).rowcount if surplus else 0
            self._count = count - gone
            if events:
                self.last = events[-1].sequence
        return surplus >= _MOST_TO_GO

    def read(self, after: int, before: int, since: float, most: int) -> Page:
        """The first events between two numbers, from a time on."""
        with _telling_damage():
            rows = self._db.execute(_PAGE, (after, before, since, most)).fetchall()
        return Page(rows[-1][0] if len(rows) == most else before - 1, [Row(*row) for row in rows])

    def close(self) -> None:
        """Ends the use of it."""
        with suppress(sqlite3.Error):
            self._db.close()

    def _one(self, query: str) -> tuple[int, ...]:
        row: tuple[int, ...] = self._db.execute(query).fetchone()
        return row

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    def _surplus(self, count: int, now: float) -> int:
        """How many of the oldest events have to go; of those that are too old, _MOST_TO_GO are looked at."""
        used = (self._one("PRAGMA page_count")[0] - self._one("PRAGMA freelist_count")[0]) * self._page_bytes
        too_many = count - self._bounds.max_events
        too_large = -(-count * max(0, used - self._bounds.max_bytes) // used)
        oldest = self._db.execute("SELECT time FROM events ORDER BY sequence LIMIT ?", (_MOST_TO_GO,))
        with closing(oldest):
            too_old = sum(1 for _ in takewhile(lambda row: row[0] < now - self._bounds.max_age, oldest))
        return max(0, too_many, too_large, too_old)

    def _shrink(self) -> None:
        if self._one("PRAGMA page_count")[0] * self._page_bytes > self._bounds.max_bytes + _SLACK_BYTES:
            # As a script: it gives one page back at each step, and execute() makes but one where there are no columns.
            self._db.executescript(f"PRAGMA incremental_vacuum({_SHRINK_PAGES})")


def _prepare(db: sqlite3.Connection) -> None:
    """Sets the file up, if it is new; DamagedError if it is of another kind."""
    # Text that is none is found out by its checksum.
    db.text_factory = bytes
    db.execute("PRAGMA trusted_schema = OFF")
    db.execute("PRAGMA cell_size_check = ON")
    # A reader beside us would keep the log from ever becoming smaller.
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    # Takes effect in a file without tables only.
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    db.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
    db.execute("BEGIN IMMEDIATE")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version == 0:
        db.execute(_SCHEMA)
        db.execute(f"PRAGMA user_version = {VERSION}")
    elif version != VERSION:
        raise DamagedError(f"it is of version {version}, and this is {VERSION}")
    db.execute("COMMIT")


@contextmanager
def _telling_damage(*others: int) -> Iterator[None]:
    """Makes DamagedErrors of SQLite's words for it."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, *others):
            raise DamagedError(str(error)) from error
        raise


def _encode(event: HistoryEvent) -> Row:
    # The defaults of an event all mean "nothing is known", and do not change.
    try:
        body = _BODY.dump_json(event.recorded, exclude_defaults=True)
    except ValueError:  # A text that cannot be encoded: that it happened is kept.
        body = _BODY.dump_json(Recorded(event.recorded.type), exclude_defaults=True)
    return Row(event.sequence, event.time, _mark(event.sequence, event.time, body), body)


def _mark(sequence: int, time: float, body: bytes) -> int:
    return crc32(body, crc32(f"{sequence} {time!r}".encode()))
