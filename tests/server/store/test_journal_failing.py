"""A journal on a disk that fails: nothing counts as written, and after it works again everything is written anew."""

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpuarbiter_server.core.records import Closed, GpuSaved, LeaseSaved, Rewritten, Saved
from gpuarbiter_server.store.journal import Journal, JournalError

from .journals import ended, gpu, lease, never_a_lease


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """One with a lease in it."""
    journal = Journal.open(tmp_path / "state", durability="relaxed")
    journal.begin(epoch=1, boot_id="boot-1", pid_namespace=77, tokens_until=1 << 41)
    journal.commit([LeaseSaved(lease(1)), Closed(never_a_lease("n"))])
    yield journal
    journal.close()


FIRST = Saved((lease(1),), (never_a_lease("n"),), ())
MANY = [LeaseSaved(lease(token)) for token in range(10, 300)]
WHOLE = Saved((lease(7), lease(8)), (ended(6), never_a_lease("n")), (gpu("gpu:0", 8),))


def reread(journal: Journal) -> Saved:
    journal.close()
    again = Journal.open(journal._path.parent, durability="full")
    again.close()
    return again.loaded.saved


@contextmanager
def full(journal: Journal) -> Iterator[None]:
    """A disk without space, as SQLite sees it."""
    pages = journal._connection.execute("PRAGMA page_count").fetchone()[0]
    journal._connection.execute(f"PRAGMA max_page_count = {pages}")
    yield
    # A connection that was opened anew has no such limit.


@contextmanager
def files_may_not_grow_beyond(size: int) -> Iterator[None]:
    """As the system does it: writes beyond it fail with EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Failing:
    """A connection on which one statement fails."""

    def __init__(self, connection: sqlite3.Connection, statement: str) -> None:
        self._connection = connection
        self._statement = statement

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str, *arguments: object) -> Any:
        if statement == self._statement:
            raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(statement, *arguments)


def break_it(journal: Journal, statement: str) -> None:
    journal._connection = Failing(journal._connection, statement)  # type: ignore[assignment]


class TestAFailedCommit:
    def test_leaves_nothing(self, journal: Journal):
        with full(journal), pytest.raises(JournalError, match=r"journal\.db: database or disk is full \(SQLITE_FULL\)"):
            journal.commit(MANY)
        assert reread(journal) == FIRST

    def test_of_a_system_that_refuses_to_write(self, journal: Journal):
        size = journal._path.with_name("journal.db-wal").stat().st_size
        with files_may_not_grow_beyond(size + 4096), pytest.raises(JournalError, match=r"SQLITE_(FULL|IOERR_WRITE)"):
            journal.commit(MANY)
        assert reread(journal) == FIRST

    @pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "COMMIT", "PRAGMA synchronous = FULL"])
    def test_at_any_statement(self, journal: Journal, statement: str):
        break_it(journal, statement)
        with pytest.raises(JournalError, match="disk I/O error"):
            journal.commit([LeaseSaved(lease(2)), Rewritten(WHOLE, 0)])
        assert reread(journal) == FIRST

    def test_that_a_value_brings_about(self, journal: Journal):
        with pytest.raises(JournalError, match="Expected"):
            journal.commit([LeaseSaved(lease(2)), LeaseSaved(replace(lease(3), token="x"))])  # type: ignore[arg-type]
        assert reread(journal) == FIRST

    def test_that_an_unforeseen_error_brings_about(self, journal: Journal):
        with pytest.raises(KeyError):
            journal.commit([LeaseSaved(lease(2)), "no change"])  # type: ignore[list-item]
        with pytest.raises(JournalError):
            journal.commit([LeaseSaved(lease(2))])
        assert reread(journal) == FIRST

    def test_stops_all_that_follow(self, journal: Journal):
        with full(journal), pytest.raises(JournalError):
            journal.commit(MANY)
        with pytest.raises(JournalError, match="SQLITE_FULL"):
            journal.commit([LeaseSaved(lease(2))])
        with pytest.raises(JournalError, match="SQLITE_FULL"):
            journal.begin(epoch=2, boot_id="b", pid_namespace=1, tokens_until=1)
        assert reread(journal) == FIRST

    def test_to_begin(self, tmp_path: Path):
        journal = Journal.open(tmp_path / "state", durability="full")
        break_it(journal, "COMMIT")
        with pytest.raises(JournalError, match="disk I/O error"):
            journal.begin(epoch=1, boot_id="b", pid_namespace=1, tokens_until=1)
        journal.close()


class TestReopened:
    def test_it_wants_the_whole_state_first(self, journal: Journal):
        with full(journal), pytest.raises(JournalError):
            journal.commit(MANY)
        journal.reopen()
        with pytest.raises(JournalError, match="the whole state has to be written first"):
            journal.commit([LeaseSaved(lease(2))])
        journal.commit([Rewritten(WHOLE, 1 << 43)])
        journal.commit([LeaseSaved(lease(9)), Closed(ended(7)), Closed(never_a_lease("n", at=300.0))])
        gone = (ended(6), ended(7), never_a_lease("n", at=300.0))
        assert reread(journal) == Saved((lease(8), lease(9)), gone, WHOLE.gpus)

    @pytest.mark.parametrize("statement", ["VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"])
    def test_it_is_not_well_before_every_page_is_written(self, journal: Journal, statement: str):
        break_it(journal, statement)
        with pytest.raises(JournalError, match="disk I/O error"):
            journal.commit([Rewritten(WHOLE, 0)])
        with pytest.raises(JournalError):
            journal.commit([LeaseSaved(lease(9))])
        journal.reopen()
        journal.commit([Rewritten(WHOLE, 0)])
        assert reread(journal) == WHOLE

    def test_somebody_who_reads_is_in_the_way_for_a_while(self, journal: Journal):
        journal._connection.execute("PRAGMA busy_timeout = 1")
        reader = sqlite3.connect(journal._path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM meta").fetchall()
        with pytest.raises(JournalError, match="its log cannot be written back while somebody reads it"):
            journal.commit([Rewritten(WHOLE, 0)])
        reader.close()
        journal.reopen()
        journal.commit([Rewritten(WHOLE, 0)])
        assert reread(journal) == WHOLE

    def test_the_start_is_still_the_one_that_was_begun(self, journal: Journal, tmp_path: Path):
        journal.close()
        journal = Journal.open(tmp_path / "state", durability="full")
        journal.begin(epoch=2, boot_id="boot-2", pid_namespace=78, tokens_until=0)
        with full(journal), pytest.raises(JournalError):
            journal.commit(MANY)
        journal.reopen()
        journal.commit([Rewritten(WHOLE, 0), GpuSaved(gpu("gpu:1", 1))])
        journal.close()
        again = Journal.open(tmp_path / "state", durability="full")
        again.close()
        loaded = again.loaded
        assert (loaded.epoch, loaded.boot_id, loaded.pid_namespace) == (2, "boot-2", 78)
        assert loaded.saved == replace(WHOLE, gpus=(*WHOLE.gpus, gpu("gpu:1", 1)))

    def test_in_good_health_is_fine_as_well(self, journal: Journal):
        journal.reopen()
        journal.commit([Rewritten(WHOLE, 0)])
        assert reread(journal) == WHOLE

    def test_a_damaged_journal_stays_out_of_use(self, journal: Journal):
        with full(journal), pytest.raises(JournalError):
            journal.commit(MANY)
        kept = {path: path.read_bytes() for path in journal._path.parent.glob("journal.db*")}
        journal._path.write_bytes(b"the disk is gone" * 300)
        for _ in range(2):
            with pytest.raises(JournalError, match="is damaged"):
                journal.reopen()
            with pytest.raises(JournalError, match="is not open"):
                journal.commit([Rewritten(WHOLE, 0)])
        for path, content in kept.items():
            path.write_bytes(content)
        journal.reopen()
        journal.commit([Rewritten(WHOLE, 0)])
        assert reread(journal) == WHOLE

    def test_not_once_it_is_closed(self, journal: Journal):
        journal.close()
        with pytest.raises(JournalError, match="is closed"):
            journal.reopen()
        with pytest.raises(JournalError, match="is closed"):
            journal.commit([])
