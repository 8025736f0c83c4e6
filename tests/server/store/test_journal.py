"""The journal in good health: what is written comes back, in this start and the next."""

import sqlite3
import threading
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from gpuarbiter_server.core.model import Holder, Sequence, WorkContext
from gpuarbiter_server.core.records import (
    Change,
    Closed,
    GpuSaved,
    LeaseDropped,
    LeaseSaved,
    Rewritten,
    Saved,
    TokensReserved,
)
from gpuarbiter_server.store import journal_rows
from gpuarbiter_server.store.journal import Journal, Loaded

from .journals import Life, Told, cooldown, ended, gpu, lease, never_a_lease


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


def begin(journal: Journal, epoch: int = 1, boot_id: str = "boot-1") -> None:
    journal.begin(epoch=epoch, boot_id=boot_id, pid_namespace=77, tokens_until=1 << 41)


def after(folder: Path, *changes: Change) -> Saved:
    """What is read after these commits, of one change each."""
    journal = Journal.open(folder, durability="relaxed")
    begin(journal)
    for change in changes:
        journal.commit([change])
    journal.close()
    return read(folder).saved


def read(folder: Path) -> Loaded:
    journal = Journal.open(folder, durability="full")
    journal.close()
    return journal.loaded


class TestWhatComesBack:
    def test_a_new_journal_is_empty_and_has_a_key(self, folder: Path):
        loaded = read(folder)
        assert loaded == Loaded(Saved(), 0, "", 0, loaded.id_key, 0)
        assert len(loaded.id_key) == 32
        assert read(folder).id_key == loaded.id_key

    def test_every_field(self, folder: Path):
        plain = lease(1)
        rich = replace(
            lease(2),
            named=False,
            hold_until=None,
            recover_until=0.1 + 0.2,
            request=replace(
                plain.request,
                holder=Holder("client-2", namespace="ns", pod="pod", container="c", pid_namespace=4026531836),
                priority=3,
                max_wait=1e-3,
                max_hold=1e9 / 3,
                ttl=2.5,
                detached=True,
                sequence=Sequence("group", 7),
                context=WorkContext(attributes=(("a", ""), ("b", "\x00\"'\\"))),
                traceparent="00-1",
                tracestate="x=1",
            ),
        )
        gone = [ended(3, name="x"), replace(never_a_lease("y"), peak=None)]
        gpus = [gpu("gpu:0", 9, cordon="", cooldown=cooldown(3, 1.5)), gpu("gpu:1", 0, cordon="repair")]
        changes = [*map(LeaseSaved, (rich, plain)), *map(Closed, gone), *map(GpuSaved, gpus)]
        assert after(folder, *changes) == Saved((plain, rich), tuple(gone), tuple(gpus))

    def test_types_too(self, folder: Path):
        def shape(value: Any) -> Any:
            parts: list[Any] = []
            if hasattr(value, "__dataclass_fields__"):
                parts = [shape(getattr(value, each.name)) for each in fields(value)]
            elif isinstance(value, tuple):
                parts = [shape(each) for each in value]
            return type(value), parts

        changes = [LeaseSaved(lease(1)), Closed(ended(2)), GpuSaved(gpu("gpu:0", 1, cooldown=cooldown(2, 3.0)))]
        expected = Saved((lease(1),), (ended(2),), (gpu("gpu:0", 1, cooldown=cooldown(2, 3.0)),))
        assert shape(after(folder, *changes)) == shape(expected)

    def test_the_last_word_on_a_lease_and_a_gpu(self, folder: Path):
        later = replace(lease(1), hold_passed=True)
        changes = [LeaseSaved(lease(1)), GpuSaved(gpu("g", 1)), LeaseSaved(later), GpuSaved(gpu("g", 2))]
        assert after(folder, *changes) == Saved((later,), (), (gpu("g", 2),))

    def test_a_lease_that_ended_or_never_was_is_gone(self, folder: Path):
        changes = [LeaseSaved(lease(1)), LeaseSaved(lease(2)), Closed(ended(1)), LeaseDropped(lease(2).lease_id)]
        assert after(folder, *changes) == Saved((), (ended(1),), ())

    def test_dropping_what_is_not_there_changes_nothing(self, folder: Path):
        assert after(folder, LeaseDropped("1-mark"), Closed(ended(2))) == Saved((), (ended(2),), ())

    def test_leases_of_one_request_are_all_kept(self, folder: Path):
        both = ended(1, name="again"), ended(2, name="again")
        assert after(folder, *map(Closed, both)).ended == both

    def test_of_a_request_that_never_was_a_lease_the_last_end_is_kept(self, folder: Path):
        first, second = never_a_lease("again", at=1.0), never_a_lease("again", at=3.0)
        between, last = never_a_lease("other", at=2.0), ended(1, name="other", at=4.0)
        assert after(folder, *map(Closed, (first, between, second, last))).ended == (second, last)

    def test_that_holds_across_starts(self, folder: Path):
        after(folder, Closed(never_a_lease("again", at=1.0)))
        assert after(folder, Closed(never_a_lease("again", at=2.0))).ended == (never_a_lease("again", at=2.0),)

    def test_a_rewritten_state_replaces_everything(self, folder: Path):
        whole = Saved((lease(5),), (ended(3), never_a_lease("n")), (gpu("gpu:9", 5),))
        changes = [LeaseSaved(lease(1)), Closed(ended(2)), GpuSaved(gpu("gpu:0", 1)), Rewritten(whole, 1 << 42)]
        assert after(folder, *changes) == whole
        assert read(folder).tokens_until == 1 << 42

    @pytest.mark.parametrize("seed", range(4))
    def test_a_long_life_through_many_starts(self, folder: Path, monkeypatch: pytest.MonkeyPatch, seed: int):
        monkeypatch.setattr(journal_rows, "_LOT", 16)
        told, life = Told(), Life(seed)
        for start in range(6):
            journal = Journal.open(folder, durability="relaxed")
            loaded = journal.loaded
            assert loaded.saved == told.saved
            assert (loaded.epoch, loaded.boot_id, loaded.pid_namespace, loaded.tokens_until) == (
                *(told.epoch, told.boot_id, told.pid_namespace, told.tokens_until),
            )
            boot = {"boot_id": f"boot-{start // 2}", "pid_namespace": start}
            for each in (journal, told):
                each.begin(epoch=start + 1, tokens_until=1 << 40, **boot)  # type: ignore[arg-type]
            for _ in range(80 if start % 3 else 1):
                changes = life.changes(told)
                journal.commit(changes)
                told.commit(changes)
            journal.close()
        assert told.epoch == 6


class TestStarts:
    def test_a_begun_start_is_known_to_the_next(self, folder: Path):
        journal = Journal.open(folder, durability="relaxed")
        begin(journal, 4)
        journal.close()
        loaded = read(folder)
        assert (loaded.epoch, loaded.boot_id, loaded.pid_namespace, loaded.tokens_until) == (4, "boot-1", 77, 1 << 41)

    def test_tokens_never_fall(self, folder: Path):
        journal = Journal.open(folder, durability="relaxed")
        begin(journal)
        journal.commit([TokensReserved(1 << 42)])
        journal.commit([TokensReserved(5), Rewritten(Saved(), 6)])
        journal.begin(epoch=2, boot_id="b", pid_namespace=1, tokens_until=7)
        journal.close()
        assert read(folder).tokens_until == 1 << 42

    def test_until_the_first_commit_times_and_pids_are_those_of_before(self, folder: Path):
        after(folder, LeaseSaved(lease(1)))
        journal = Journal.open(folder, durability="relaxed")
        journal.begin(epoch=2, boot_id="boot-2", pid_namespace=78, tokens_until=0)
        journal.close()
        loaded = read(folder)
        assert (loaded.epoch, loaded.boot_id, loaded.pid_namespace) == (2, "boot-1", 77)
        journal = Journal.open(folder, durability="relaxed")
        journal.begin(epoch=3, boot_id="boot-2", pid_namespace=78, tokens_until=0)
        journal.commit([Closed(ended(1, at=3.0))])
        journal.close()
        loaded = read(folder)
        assert (loaded.epoch, loaded.boot_id, loaded.pid_namespace) == (3, "boot-2", 78)

    def test_what_ended_before_the_machine_was_started_ended_at_its_start_at_the_latest(self, folder: Path):
        after(folder, Closed(ended(1, at=9e6)), Closed(ended(2, at=9e6)))
        journal = Journal.open(folder, durability="relaxed")
        begin(journal, 2, "boot-2")
        journal.commit([Closed(ended(3, at=40.0))])
        journal.close()
        assert read(folder).saved.ended == (ended_at_start(1, 9e6), ended_at_start(2, 9e6), ended(3, at=40.0))
        journal = Journal.open(folder, durability="relaxed")
        begin(journal, 3, "boot-2")
        journal.commit([Closed(ended(4, at=3601.0))])
        journal.close()
        assert read(folder).saved.ended == (ended(3, at=40.0), ended(4, at=3601.0))


def ended_at_start(token: int, at: float) -> Any:
    return replace(ended(token, at=at), ended_at=0.0)


class TestOneCommit:
    def test_has_all_of_its_changes_or_none(self, folder: Path):
        journal = Journal.open(folder, durability="full")
        begin(journal)
        # As an arbiter that was killed leaves it: nothing was closed.
        journal.commit([LeaseSaved(lease(1)), LeaseSaved(lease(2)), GpuSaved(gpu("g", 2))])
        seen = sqlite3.connect(folder / "journal.db")
        assert seen.execute("SELECT count(*) FROM lease").fetchone() == (2,)
        journal._connection.execute("BEGIN IMMEDIATE")
        journal._rows.apply(LeaseSaved(lease(3)))
        assert seen.execute("SELECT count(*) FROM lease").fetchone() == (2,)
        seen.close()
        journal._connection.rollback()
        journal.close()
        assert read(folder).saved.leases == (lease(1), lease(2))

    def test_may_be_made_by_another_thread(self, folder: Path):
        journal = Journal.open(folder, durability="full")
        begin(journal)
        thread = threading.Thread(target=journal.commit, args=([LeaseSaved(lease(1))],))
        thread.start()
        thread.join()
        journal.close()
        assert read(folder).saved.leases == (lease(1),)

    def test_without_changes_is_fine(self, folder: Path):
        journal = Journal.open(folder, durability="full")
        begin(journal)
        journal.commit([])
        journal.close()
        assert read(folder).saved == Saved()


class TestDurability:
    @pytest.mark.parametrize(("durability", "each"), [("full", "FULL"), ("relaxed", "NORMAL")])
    def test_of_a_commit(self, folder: Path, durability: str, each: str):
        asked = statements(folder, durability, LeaseSaved(lease(1)))
        assert asked[0] == "BEGIN IMMEDIATE"
        assert asked[-1] == "COMMIT"
        assert synchronous(folder, durability) == {"FULL": 2, "NORMAL": 1}[each]

    @pytest.mark.parametrize("change", [TokensReserved(1 << 44), Rewritten(Saved(), 1 << 44)])
    def test_tokens_are_always_on_the_disk(self, folder: Path, change: Change):
        asked = statements(folder, "relaxed", change)
        assert asked[0] == "PRAGMA synchronous = FULL"
        assert asked[-1] == "PRAGMA synchronous = NORMAL"

    def test_a_rewritten_state_is_written_back_as_a_whole(self, folder: Path):
        asked = statements(folder, "full", Rewritten(Saved((lease(1),)), 1 << 44))
        assert asked[-1] == "PRAGMA wal_checkpoint(TRUNCATE)"
        assert "VACUUM" in asked[asked.index("COMMIT") :]


def statements(folder: Path, durability: str, change: Change) -> list[str]:
    """What SQLite is asked in one commit."""
    journal = Journal.open(folder, durability=durability)
    begin(journal)
    asked: list[str] = []
    journal._connection.set_trace_callback(asked.append)
    journal.commit([change])
    journal._connection.set_trace_callback(None)
    journal.close()
    return asked


def synchronous(folder: Path, durability: str) -> int:
    journal = Journal.open(folder, durability=durability)
    found: int = journal._connection.execute("PRAGMA synchronous").fetchone()[0]
    journal.close()
    return found
