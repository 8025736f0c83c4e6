"""The journal on disk: what must outlive the arbiter, written before anybody is told of it.

Law: what is read back is what was true after one of the commits, or nothing at all: a journal that is
damaged is refused, never mended by guessing. After a commit that failed nothing more is written until the
journal was opened anew, and then the whole state comes first: a failed sync may have lost pages that the
kernel no longer knows to be lost, so that only what is written after it can be relied on.

Blocking, and called from one thread at a time.
"""

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gpuarbiter_server.core.records import Change, Rewritten, Saved, TokensReserved
from gpuarbiter_server.store import journal_file
from gpuarbiter_server.store.journal_check import Contents, described
from gpuarbiter_server.store.journal_opening import make_if_missing, read_in_order
from gpuarbiter_server.store.journal_rows import Rows
from gpuarbiter_server.store.state_directory import JournalError, take

__all__ = ["Journal", "JournalError", "Loaded"]

# SQLite's names for them: whether a commit waits for the disk.
_SYNCHRONOUS = {"full": "FULL", "relaxed": "NORMAL"}
# Changes that no power cut may take back, whatever was chosen for the others.
_ALWAYS_SYNCED = frozenset({TokensReserved, Rewritten})


@dataclass(frozen=True, slots=True)
class Loaded:
    """What an earlier start left."""

    saved: Saved
    # Of the last start; 0: there was none.
    epoch: int
    # The start of the machine that times and pids in `saved` belong to; empty: none yet.
    boot_id: str
    # Inode of the PID namespace that pids in `saved` belong to; 0: none yet, or not known.
    pid_namespace: int
    # The secret of lease ids, kept for ever.
    id_key: bytes
    # No token above it was ever granted; 0: none at all.
    tokens_until: int


class Journal:
    """An open journal, and the lock on its directory."""

    loaded: Loaded

    def __init__(self, path: Path, lock: int, contents: Contents, *, synchronous: str) -> None:
        self._path = path
        self._lock: int | None = lock
        self._synchronous = synchronous
        # Why nothing can be written; None: it can.
        self._fault: str | None = None
        # Whether the whole state has to come before anything else.
        self._behind = False
        # What times and pids go by from the next commit on; None: nothing new.
        self._boot: tuple[str, int] | None = None
        self.loaded = self._connect(contents)

    @classmethod
    def open(cls, directory: Path, *, durability: str) -> "Journal":
        """Takes the lock, checks the journal and reads it; where there is none, makes one.

        Args:
            directory: made if it is missing.
            durability: "full": commit() returns once the disk has it. "relaxed": once the system has it.

        Raises:
            JournalError: another arbiter has it, it is damaged, or it cannot be used.
        """
        path = directory.absolute() / journal_file.NAME
        lock = take(path.parent)
        try:
            make_if_missing(path)
            return cls(path, lock, read_in_order(path), synchronous=_SYNCHRONOUS[durability])
        except BaseException:
            os.close(lock)
            raise

    def begin(self, *, epoch: int, boot_id: str, pid_namespace: int, tokens_until: int) -> None:
        """Begins a start: its epoch and its tokens are durable when this returns.

        `boot_id` and `pid_namespace` become the journal's with the first commit, which has to hold all that
        becomes of what was loaded: until then the times and pids in it are those of before.

        Raises:
            JournalError: it cannot be written.
        """

        def work(rows: Rows) -> None:
            rows.meta.epoch = epoch
            rows.reserve(tokens_until)
            rows.forget_expired()
            if rows.empty:
                rows.count_by(boot_id, pid_namespace)

        self._transact(work, synced=True)
        self._boot = boot_id, pid_namespace

    def commit(self, changes: Sequence[Change]) -> None:
        """Makes these changes, all or none; they are durable when it returns.

        Raises:
            JournalError: it failed. None of them counts as written, though the next start may find them; until
                reopen() nothing more is taken.
        """
        kinds = {type(change) for change in changes}
        anew = Rewritten in kinds
        if self._behind and not anew:
            raise JournalError(f"{self._path}: after a failure the whole state has to be written first")

        def work(rows: Rows) -> None:
            if self._boot is not None:
                rows.count_by(*self._boot)
            for change in changes:
                rows.apply(change)

        self._transact(work, synced=not kinds.isdisjoint(_ALWAYS_SYNCED), anew=anew)
        self._boot = None
        self._behind = False

    def compact(self) -> None:
        """Takes out what need not be kept any more, and gives the room back to the disk; JournalError."""
        self._transact(Rows.forget_expired, synced=True, anew=True)

    def reopen(self) -> None:
        """Opens it anew after a failed commit. The next commit has to hold the whole state.

        Raises:
            JournalError: that failed as well; it may be tried again.
        """
        if self._lock is None:
            raise JournalError(f"{self._path} is closed")
        self._fault = f"{self._path} is not open"
        self._disconnect()
        self._connect(read_in_order(self._path))
        self._behind, self._fault = True, None

    def close(self) -> None:
        """Closes it and gives the lock back; fine twice."""
        if self._lock is None:
            return
        if self._fault is None:
            with suppress(*journal_file.SQLITE_FAILURES):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._fault = f"{self._path} is closed"
        self._disconnect()
        os.close(self._lock)
        self._lock = None

    def _connect(self, contents: Contents) -> Loaded:
        meta = contents.meta
        assert meta is not None, "it is in order"
        try:
            self._connection = journal_file.open_to_write(self._path, synchronous=self._synchronous)
        except journal_file.SQLITE_FAILURES as error:
            raise JournalError(f"{self._path} cannot be opened: {described(error)}") from error
        self._rows = Rows(self._connection, contents, meta)
        return Loaded(
            contents.saved(),
            meta.epoch,
            meta.boot_id,
            meta.pid_namespace,
            bytes.fromhex(meta.id_key),
            meta.tokens_until,
        )

    def _disconnect(self) -> None:
        with suppress(*journal_file.SQLITE_FAILURES):
            self._connection.close()

    def _transact(self, work: Callable[[Rows], None], *, synced: bool, anew: bool = False) -> None:
        """Does it in one transaction; after a failure this journal is not usable any more."""
        if self._fault is not None:
            raise JournalError(self._fault)
        execute = self._connection.execute
        raised = synced and self._synchronous != "FULL"
        try:
            if raised:
                execute("PRAGMA synchronous = FULL")
            execute("BEGIN IMMEDIATE")
            work(self._rows)
            self._rows.write_meta()
            execute("COMMIT")
            if anew:
                _write_every_page(self._connection)
            if raised:
                execute(f"PRAGMA synchronous = {self._synchronous}")
        except BaseException as error:
            self._fault = f"{self._path}: {described(error)}"
            with suppress(*journal_file.SQLITE_FAILURES):
                self._connection.rollback()
            if isinstance(error, _FAILURES):
                raise JournalError(self._fault) from error
            raise


# A value that does not fit its type is a ValueError or an OverflowError.
_FAILURES = (*journal_file.SQLITE_FAILURES, OSError, ValueError, OverflowError)


def _write_every_page(connection: sqlite3.Connection) -> None:
    """Leaves no page in the file that an earlier, failed sync may have lost.

    After a failed fsync Linux takes the pages that it could not write for clean: the next fsync succeeds
    without them, and once they leave the cache the file has its old content there. No checksum of SQLite's
    covers that. So everything is written again: the copy that VACUUM makes goes through the log as a whole,
    the checkpoint writes it back and syncs both files, and cuts the log off, so that no old frame is left.
    """
    connection.execute("VACUUM")
    busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    if busy:
        raise TimeoutError("its log cannot be written back while somebody reads it")
