"""A journal that cannot be used: another arbiter has it, others could write it, it is damaged or too new."""

import fcntl
import os
import re
import shutil
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gpuarbiter_server.core.records import Closed, GpuSaved, LeaseSaved
from gpuarbiter_server.store import journal_file, journal_opening
from gpuarbiter_server.store.journal import Journal, JournalError
from gpuarbiter_server.store.journal_schema import ENDED, GPUS, LEASES, META

from .journals import ended, gpu, lease, unsynced


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with a journal of a few rows."""
    journal = unsynced(tmp_path / "state")
    journal.begin(epoch=1, boot_id="boot-1", pid_namespace=77, tokens_until=1 << 41)
    journal.commit([LeaseSaved(lease(1)), LeaseSaved(lease(2)), Closed(ended(3)), GpuSaved(gpu("gpu:0", 3))])
    journal.close()
    return tmp_path / "state"


def contents(folder: Path) -> dict[str, bytes]:
    """All that is kept; the index of the log (-shm) is built anew by whoever looks."""
    files = {path.name: path.read_bytes() for path in folder.glob("journal.db*")}
    return {name: content for name, content in files.items() if content and not name.endswith("-shm")}


def refused(folder: Path) -> str:
    before = contents(folder)
    with pytest.raises(JournalError) as caught:
        Journal.open(folder, durability="full")
    assert contents(folder) == before
    return str(caught.value)


def change(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "journal.db")) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


class TestTheDirectory:
    def test_is_made_for_its_user_alone(self, tmp_path: Path):
        folder = tmp_path / "not" / "there"
        Journal.open(folder, durability="full").close()
        assert [oct(path.stat().st_mode & 0o777) for path in (folder, folder / "journal.db", folder / "lock")] == [
            *("0o700", "0o600", "0o600"),
        ]

    def test_the_log_is_its_users_alone_too(self, tmp_path: Path):
        journal = Journal.open(tmp_path / "state", durability="full")
        assert {path.stat().st_mode & 0o777 for path in (tmp_path / "state").iterdir()} == {0o600}
        journal.close()

    def test_is_of_one_arbiter_at_a_time(self, folder: Path):
        journal = Journal.open(folder, durability="full")
        message = (
            f"another arbiter (pid {os.getpid()}) uses the state directory {folder}; "
            "give this one a directory of its own with journal.path"
        )
        with pytest.raises(JournalError, match=f"^{re.escape(message)}$"):
            Journal.open(folder, durability="full")
        journal.close()
        journal.close()
        Journal.open(folder, durability="full").close()

    def test_a_lock_that_has_no_number_yet(self, folder: Path):
        journal = Journal.open(folder, durability="full")
        os.truncate(folder / "lock", 0)
        with pytest.raises(JournalError, match=r"another arbiter \(pid unknown\)"):
            Journal.open(folder, durability="full")
        journal.close()

    def test_the_lock_is_not_inherited(self, folder: Path):
        journal = Journal.open(folder, durability="full")
        assert journal._lock is not None
        assert not os.get_inheritable(journal._lock)
        journal.close()

    @pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
    def test_that_others_can_write_to_is_refused(self, folder: Path, mode: int):
        folder.chmod(mode)
        assert "belongs to another user or can be written by others" in refused(folder)

    def test_that_belongs_to_another_user_is_refused(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        owner = folder.stat().st_uid
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
        if owner == 0:
            assert Journal.open(folder, durability="full").close() is None  # type: ignore[func-returns-value]
        else:
            assert "belongs to another user" in refused(folder)

    def test_that_is_none_is_refused(self, tmp_path: Path):
        (tmp_path / "file").touch()
        with pytest.raises(JournalError, match=r"cannot be used: .*file.*; set journal\.path"):
            Journal.open(tmp_path / "file", durability="full")

    def test_a_lock_that_leads_elsewhere_is_refused(self, tmp_path: Path):
        folder = tmp_path / "state"
        folder.mkdir(mode=0o700)
        (folder / "lock").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(JournalError, match="cannot be used"):
            Journal.open(folder, durability="full")
        assert not (tmp_path / "elsewhere").exists()

    def test_a_disk_that_is_full_keeps_nobody_from_locking(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "pwrite", full)
        Journal.open(folder, durability="full").close()

    def test_a_file_system_without_locks_is_refused(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        def none(*_: object) -> None:
            raise OSError(37, "No locks available")

        monkeypatch.setattr(fcntl, "flock", none)
        assert "cannot be used: [Errno 37] No locks available; set journal.path" in refused(folder)

    def test_a_refusal_gives_the_lock_back(self, folder: Path):
        shutil.copy(folder / "journal.db", folder / "kept")
        (folder / "journal.db").write_bytes(b"no database, and longer than a header of one is" * 9)
        assert "file is not a database (SQLITE_NOTADB)" in refused(folder)
        (folder / "kept").rename(folder / "journal.db")
        Journal.open(folder, durability="full").close()


class TestWhatIsWrong:
    def test_the_message_says_what_to_do(self, folder: Path):
        change(folder, "UPDATE lease SET mark = 5 WHERE id = 2")
        assert refused(folder) == (
            f"the journal {folder}/journal.db is damaged: row 2 of lease: its checksum is wrong; 3 rows can be read, "
            f"and there were 4. Nothing was changed. What can still be read: gpu-arbiterd journal inspect --set "
            f"journal.path={folder}. To start without it: mv {folder} {folder}.damaged (leases held now are then "
            "forgotten; fencing tokens keep rising)"
        )

    def test_the_command_that_it_gives_works(self, folder: Path):
        odd = folder.with_name("a state")
        folder.rename(odd)
        odd.with_name("a state.damaged").mkdir()
        change(odd, "DELETE FROM meta")
        assert f"mv '{odd}' '{odd}.damaged1' " in refused(odd)

    @pytest.mark.parametrize(
        ("statement", "problem"),
        [
            ("UPDATE lease SET body = replace(body, 'client-1', 'client-2')", "row 1 of lease: its checksum is wrong"),
            ("UPDATE lease SET body = CAST(body AS BLOB)", "row 1 of lease: it is of another form"),
            ("UPDATE ended SET mark = 'x'", "row 1 of ended: its checksum is wrong"),
            ("UPDATE lease SET id = 7 WHERE id = 2", "row 7 of lease: its checksum is wrong"),
            ("UPDATE meta SET body = '{}'", "row 1 of meta: its checksum is wrong"),
            ("DELETE FROM meta", "the row of meta is missing"),
            ("DELETE FROM lease WHERE id = 1", "3 rows can be read, and there were 4"),
            ("DELETE FROM gpu", "3 rows can be read, and there were 4"),
            ("CREATE TABLE other (id)", "its tables are not those of a journal"),
            ("CREATE TRIGGER t AFTER INSERT ON lease BEGIN DELETE FROM gpu; END", "its tables are not those"),
            (
                "ALTER TABLE lease RENAME TO leases",
                "its tables are not those of a journal; SQLite cannot read it: no such",
            ),
            ("PRAGMA user_version = 0", "its tables are not those of a journal"),
            ("PRAGMA journal_mode = DELETE", "its head does not say that it has a log"),
        ],
    )
    def test_is_named(self, folder: Path, statement: str, problem: str):
        change(folder, statement)
        message = refused(folder)
        assert "is damaged: " in message
        assert problem in message

    def test_a_row_that_another_took_the_place_of(self, folder: Path):
        change(folder, "DELETE FROM lease WHERE id = 1")
        number, body, mark = LEASES.encode(9, lease(9))
        change(folder, f"INSERT INTO lease VALUES ({number}, '{body}', {mark})")
        assert "its rows are not those of one moment" in refused(folder)

    @pytest.mark.parametrize(
        ("table", "row", "what"),
        [
            ("lease", LEASES.encode(9, lease(1)), "row 9 of lease: it is there twice"),
            ("gpu", GPUS.encode(9, gpu("gpu:0", 4)), "row 9 of gpu: it is there twice"),
        ],
    )
    def test_what_is_there_twice(self, folder: Path, table: str, row: tuple[int, str, int], what: str):
        change(folder, f"INSERT INTO {table} VALUES ({row[0]}, '{row[1]}', {row[2]})")
        assert what in refused(folder)

    def test_a_body_that_is_not_understood(self, folder: Path):
        body = b'{"reason": "a form of another version"}'
        change(folder, f"UPDATE ended SET body = '{body.decode()}', mark = {ENDED._mark(1, body)}")
        assert "row 1 of ended: it is not understood: " in refused(folder)

    def test_a_head_that_belongs_to_another_version(self, folder: Path):
        journal = unsynced(folder)
        journal._rows.meta.version = 0
        journal.commit([])
        journal.close()
        assert "its head says version 1, and its row of meta 0" in refused(folder)

    def test_what_only_sqlite_notices(self, folder: Path):
        content = bytearray((folder / "journal.db").read_bytes())
        # The number of free pages, in the header of the file.
        content[36:40] = (3).to_bytes(4, "big")
        (folder / "journal.db").write_bytes(content)
        assert "SQLite's check: " in refused(folder)

    def test_a_lot_that_is_wrong_is_told_in_short(self, folder: Path):
        change(folder, "UPDATE lease SET mark = 5", "UPDATE ended SET mark = 5", "UPDATE gpu SET mark = 5")
        assert refused(folder).count("its checksum is wrong") == 3
        assert "; and 2 more." in refused(folder)

    def test_a_newer_journal(self, folder: Path):
        change(folder, "PRAGMA user_version = 2", "CREATE TABLE newer (id)")
        message = refused(folder)
        assert "cannot be used: it is of version 2, made by a newer arbiter; this one knows version 1." in message
        assert "Start the newer arbiter." in message
        assert f"mv {folder} " in message


class TestParts:
    def test_an_empty_file_is_no_journal(self, folder: Path):
        os.truncate(folder / "journal.db", 0)
        assert "journal.db is empty, and no arbiter leaves it so" in refused(folder)

    def test_a_log_without_its_journal_is_kept(self, folder: Path):
        (folder / "journal.db").unlink()
        (folder / "journal.db-wal").write_bytes(b"what an older journal left")
        assert f"{folder}/journal.db is missing, but its log journal.db-wal is there" in refused(folder)

    def test_an_empty_log_without_its_journal_is_nothing(self, tmp_path: Path):
        folder = tmp_path / "state"
        folder.mkdir(mode=0o700)
        (folder / "journal.db-wal").touch()
        Journal.open(folder, durability="full").close()

    def test_what_a_crash_left_of_a_journal_being_made(self, tmp_path: Path):
        folder = tmp_path / "state"
        folder.mkdir(mode=0o700)
        for name in ("journal.db.new", "journal.db.new-journal", "journal.db.new-wal"):
            (folder / name).write_bytes(b"half of it")
        Journal.open(folder, durability="full").close()
        assert {path.name for path in folder.iterdir()} == {"journal.db", "lock"}

    def test_a_journal_that_cannot_be_made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(journal_opening, "create", full)
        with pytest.raises(JournalError, match=r"state/journal\.db cannot be made: .*No space left on device"):
            Journal.open(tmp_path / "state", durability="full")

    def test_a_file_system_without_logs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        class Connection(sqlite3.Connection):
            def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
                return super().execute(statement.replace("= WAL", "= DELETE"), *arguments)

        monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Connection))
        with pytest.raises(JournalError, match="a write-ahead log is not possible on this file system"):
            Journal.open(tmp_path / "state", durability="full")
        assert not (tmp_path / "state" / "journal.db").exists()

    def test_a_journal_that_cannot_be_opened_for_writing(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        def locked(*_: object, **__: object) -> None:
            raise sqlite3.OperationalError("unable to open database file")

        monkeypatch.setattr(journal_file, "open_to_write", locked)
        assert "cannot be opened: unable to open database file" in refused(folder)


def test_the_row_of_meta_is_one(folder: Path):
    journal = unsynced(folder)
    row = META.encode(2, journal._rows.meta)
    journal.close()
    change(folder, f"INSERT INTO meta VALUES ({row[0]}, '{row[1]}', {row[2]})")
    assert "row 2 of meta: it is there twice" in refused(folder)
