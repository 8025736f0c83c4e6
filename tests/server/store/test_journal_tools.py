"""Looking at a journal, checking it, making it smaller: beside an arbiter, and on what is damaged."""

import os
import sqlite3
from pathlib import Path

import pytest

from gpuarbiter_server.core.records import Closed, GpuSaved, LeaseSaved, Saved
from gpuarbiter_server.store.journal import Journal, JournalError
from gpuarbiter_server.store.journal_tools import Inspection, compact, inspect, verify

from .journals import ended, gpu, lease, unsynced


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """One that an arbiter has open."""
    journal = unsynced(tmp_path / "state")
    journal.begin(epoch=3, boot_id="boot-1", pid_namespace=77, tokens_until=1 << 41)
    journal.commit([LeaseSaved(lease(1)), Closed(ended(3)), GpuSaved(gpu("gpu:0", 3))])
    return journal


@pytest.fixture
def folder(journal: Journal) -> Path:
    """The directory of one that nobody has open."""
    journal.close()
    return journal._path.parent


SAVED = Saved((lease(1),), (ended(3),), (gpu("gpu:0", 3),))


def test_looking_beside_an_arbiter_shows_what_is_committed(journal: Journal):
    folder = journal._path.parent
    found = inspect(folder)
    files = {name: (folder / name).stat().st_size for name in ("journal.db", "journal.db-wal")}
    assert found == Inspection(folder / "journal.db", 1, 3, "boot-1", 77, 1 << 41, SAVED, files, ())
    journal.commit([LeaseSaved(lease(2))])
    assert inspect(folder).saved.leases == (lease(1), lease(2))
    assert verify(folder) == []
    journal.close()


def test_looking_when_no_arbiter_runs_changes_nothing(folder: Path):
    before = (folder / "journal.db").read_bytes()
    assert inspect(folder).saved == SAVED
    assert verify(folder) == []
    assert (folder / "journal.db").read_bytes() == before
    assert Journal.open(folder, durability="full").close() is None  # type: ignore[func-returns-value]


def test_of_a_damaged_one_what_can_be_read_is_shown(folder: Path):
    with sqlite3.connect(folder / "journal.db") as connection:
        connection.execute("UPDATE lease SET mark = 5")
    connection.close()
    found = inspect(folder)
    assert (found.saved.leases, found.saved.ended, found.epoch) == ((), SAVED.ended, 3)
    assert list(found.problems) == verify(folder)
    assert found.problems[0] == "row 1 of lease: its checksum is wrong"


def test_where_there_is_none(tmp_path: Path):
    path = tmp_path / "journal.db"
    nothing = Inspection(path, None, None, None, None, None, Saved(), {}, ("there is no journal.db",))
    assert inspect(tmp_path) == nothing
    assert verify(tmp_path) == ["there is no journal.db"]
    with pytest.raises(JournalError, match=r"there is no .*journal\.db"):
        compact(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_may_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def forbidden(*_: object, **__: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", forbidden)
    assert verify(folder) == ["it cannot be read: [Errno 13] Permission denied"]


def test_compacting_says_what_it_came_to(folder: Path):
    journal = unsynced(folder)
    journal.commit([*(Closed(ended(token, at=300.0)) for token in range(5_000)), Closed(ended(5_000, at=1e4))])
    journal.close()
    before = (folder / "journal.db").stat().st_size
    sizes = compact(folder)
    assert sizes.before == before
    assert sizes.after == (folder / "journal.db").stat().st_size < before / 10
    assert inspect(folder).saved.ended == (ended(5_000, at=1e4),)


def test_compacting_is_for_when_no_arbiter_runs(journal: Journal):
    with pytest.raises(JournalError, match="another arbiter"):
        compact(journal._path.parent)
    journal.close()
