"""A journal stays small, however much happens: what ended is kept for an hour, and so many of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuarbiter_server.core.leases import KEPT_RECORDS, KEPT_SECONDS
from gpuarbiter_server.core.records import Change, Closed, GpuSaved, LeaseSaved, Rewritten, Saved
from gpuarbiter_server.store import journal_check, journal_rows
from gpuarbiter_server.store.journal import Journal

from .journals import ended, gpu, lease, never_a_lease, unsynced

MIB = 1024**2


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = unsynced(tmp_path / "state")
    journal.begin(epoch=1, boot_id="boot-1", pid_namespace=77, tokens_until=1 << 41)
    yield journal
    journal.close()


def ended_rows(journal: Journal) -> int:
    found: int = journal._connection.execute("SELECT count(*) FROM ended").fetchone()[0]
    return found


def reread(journal: Journal) -> Saved:
    journal.close()
    again = unsynced(journal._path.parent)
    again.close()
    return again.loaded.saved


def size(journal: Journal) -> int:
    return sum(path.stat().st_size for path in journal._path.parent.iterdir())


def test_many_grants_and_ends_keep_it_small(journal: Journal):
    for token in range(10_000):
        at = token * 20.0
        over: list[Change] = [Closed(ended(token - 10, at=at)), GpuSaved(gpu("gpu:0", token))]
        journal.commit([*(over if token >= 10 else ()), LeaseSaved(lease(token, granted_at=at))])
    # An hour holds 180 of them.
    assert ended_rows(journal) <= 180 + 2 * journal_rows._LOT
    # The log before a checkpoint, and the file.
    assert size(journal) < 6 * MIB
    saved = reread(journal)
    assert [each.token for each in saved.leases] == list(range(9_990, 10_000))
    assert [each.token for each in saved.ended] == list(range(9_990 - 181, 9_990))
    assert size(journal) < MIB


def test_what_ended_is_kept_for_an_hour(journal: Journal):
    journal.commit([Closed(ended(1, at=10.0)), Closed(ended(2, at=11.0)), Closed(ended(3, at=10.0 + KEPT_SECONDS))])
    assert reread(journal).ended == (ended(1, at=10.0), ended(2, at=11.0), ended(3, at=10.0 + KEPT_SECONDS))
    journal = unsynced(journal._path.parent)
    journal.commit([Closed(ended(4, at=10.5 + KEPT_SECONDS))])
    assert [each.token for each in reread(journal).ended] == [2, 3, 4]


def test_so_many_are_kept_at_the_most(journal: Journal, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journal_rows, "_LOT", 4)
    for module in (journal_rows, journal_check):
        monkeypatch.setattr(module, "KEPT_RECORDS", 10)
    for token in range(40):
        journal.commit([Closed(ended(token)), Closed(never_a_lease(f"n-{token % 3}"))])
        assert ended_rows(journal) <= 10 + 2 * 4
    assert len(reread(journal).ended) == 10
    assert KEPT_RECORDS == 100_000


def test_the_next_start_takes_out_what_is_too_old(journal: Journal):
    journal.commit([Closed(never_a_lease("old", at=1.0)), Closed(ended(2, at=1.0)), Closed(ended(3, at=1e4))])
    assert ended_rows(journal) == 3
    journal.close()
    journal = unsynced(journal._path.parent)
    journal.begin(epoch=2, boot_id="boot-1", pid_namespace=77, tokens_until=0)
    assert ended_rows(journal) == 1
    journal.commit([Closed(never_a_lease("old", at=1e4))])
    assert reread(journal).ended == (ended(3, at=1e4), never_a_lease("old", at=1e4))


def test_a_rewritten_state_gives_the_room_of_what_was_there_back(journal: Journal):
    journal.commit([Closed(ended(token)) for token in range(5_000)])
    before = size(journal)
    journal.commit([Rewritten(Saved((lease(1),)), 0)])
    assert size(journal) < before / 10
    assert reread(journal) == Saved((lease(1),))


def test_compacting_takes_out_what_is_too_old_and_gives_its_room_back(journal: Journal):
    journal.commit([*(Closed(ended(token, at=1.0)) for token in range(5_000)), Closed(ended(5_000, at=1e4))])
    journal.close()
    journal = unsynced(journal._path.parent)
    before = size(journal)
    journal.compact()
    assert ended_rows(journal) == 1
    assert size(journal) < before / 10
    journal.commit([LeaseSaved(lease(1))])
    assert reread(journal) == Saved((lease(1),), (ended(5_000, at=1e4),))
