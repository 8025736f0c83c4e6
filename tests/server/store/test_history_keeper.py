"""What becomes of events when their file is damaged, full, slow or not there."""

import logging
import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpuarbiter_server.store import history_keeper
from gpuarbiter_server.store.history_file import Bounds, HistoryEvent, HistoryFile, Page
from gpuarbiter_server.store.history_keeper import Arrived, HistoryKeeper

from .histories import LARGE, LONG, MANY, Wall, event

MS = 1_700_000_000_000


class Kept:
    """A keeper, turned by hand, and what it has shown."""

    def __init__(self, path: Path, wall: Wall, *, max_events: int = MANY, max_age: float = LONG) -> None:
        self.wall = wall
        self.shown: list[int] = []
        self.last = 0
        self.arrived: deque[Arrived] = deque(maxlen=history_keeper.ROOM)
        self.count = 0
        self.keeper = HistoryKeeper(path, Bounds(max_events, max_age, LARGE), wall=wall, show=self._show)

    def _show(self, last: int, new: list[HistoryEvent]) -> None:
        assert last >= self.last
        assert not new or new[-1].sequence == last
        self.last = last
        self.shown += [one.sequence for one in new]

    def observe(self, count: int = 1) -> None:
        for _ in range(count):
            self.count += 1
            self.arrived.append(Arrived(self.count, self.wall(), event(self.count)))

    def turn(self, count: int = 0, *, due: bool = False) -> None:
        self.observe(count)
        if due:
            self.keeper.due = 0.0
        assert self.keeper.turn(self.arrived) == bool(count)

    def in_file(self) -> list[tuple[int, str]]:
        page = self.keeper.read(0, 2**62, 0.0, MANY)
        assert page is not None
        return described(page)


def described(page: Page) -> list[tuple[int, str]]:
    rows = [row.decoded() for row in page.events if not isinstance(row, HistoryEvent)]
    return [(row.sequence, row.recorded.detail) for row in rows if row is not None]


def expected(*pairs: tuple[int, int]) -> list[tuple[int, str]]:
    return [(sequence, f"event {number}") for sequence, number in pairs]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


@pytest.fixture
def wall() -> Wall:
    return Wall(MS / 1000)


@pytest.fixture
def kept(path: Path, wall: Wall) -> Iterator[Kept]:
    one = Kept(path, wall)
    yield one
    one.keeper.close()


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, method: str = "append", error: Exception | None = None) -> Iterator[None]:
    """Meanwhile a full disk answers."""

    def fail(*_: object) -> None:
        raise error or sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(HistoryFile, method, fail)
        yield


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_numbers_go_on_where_the_file_ended(path: Path, wall: Wall):
    for life in range(3):
        kept = Kept(path, wall)
        kept.turn()
        assert (kept.last, kept.shown) == (2 * life, [])
        kept.turn(2)
        assert kept.shown == [2 * life + 1, 2 * life + 2]
        kept.keeper.close()


def test_what_was_not_committed_gives_its_numbers_to_others(path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch):
    first = Kept(path, wall)
    first.turn(3)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(HistoryFile, "_surplus", die)  # in the middle of the transaction
        with pytest.raises(KeyboardInterrupt):
            first.turn(2)
    assert first.shown == [1, 2, 3]
    first.keeper.close()
    second = Kept(path, wall)
    second.turn(1)
    assert second.shown == [4]
    second.keeper.close()


def test_while_the_disk_is_full_events_are_shown_and_written_later(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    kept.turn(2)
    with failing(monkeypatch):
        kept.turn(1)
        kept.turn(2)
        assert kept.shown == [1, 2, 3, 4, 5], "each of them once"
        assert kept.in_file() == expected((1, 1), (2, 2)), "what is there can be read"
        kept.turn(1, due=True)
        kept.turn(1)
        assert kept.shown == [1, 2, 3, 4, 5, 6, 7]
    kept.turn(1)
    assert len(kept.in_file()) == 2, "it is not tried again at once"
    kept.turn(1, due=True)
    assert kept.in_file() == expected(*[(number, number) for number in range(1, 10)])
    assert kept.shown == list(range(1, 10))
    assert kept.keeper.unwritten == 0
    failed, *others = warnings(caplog)
    assert "cannot be used, so events are kept in memory for now: database or disk is full" in failed
    assert [word for word in others if "0 events are missing" in word], others


def test_it_says_once_that_it_fails(kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    with failing(monkeypatch, "__init__"):
        for _ in range(5):
            kept.turn(1, due=True)
    assert len(warnings(caplog)) == 1
    assert kept.keeper.read(0, 2**62, 0.0, 1) is None


def test_there_is_room_for_so_many_and_what_is_lost_is_counted(
    path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(history_keeper, "ROOM", 10)
    kept = Kept(path, wall)
    with failing(monkeypatch):
        kept.turn(8)
        kept.turn(5)
    assert kept.keeper.unwritten == 3
    # A disk that took long: the oldest that had arrived are gone.
    kept.observe(14)
    kept.turn(1)
    assert kept.keeper.unwritten == 3 + 5 + 10
    assert kept.shown == [*range(1, 14), *range(19, 29)]
    kept.turn(due=True)
    assert kept.in_file() == expected(*[(number, number) for number in range(19, 29)])
    kept.keeper.close()
    assert "18 events are missing" in warnings(caplog)[-2]
    assert "18 events were not written" in warnings(caplog)[-1]


def test_what_is_left_at_the_end_is_told(
    path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    kept = Kept(path, wall)
    with failing(monkeypatch):
        kept.turn(2)
        kept.keeper.turn(kept.arrived, last=True)
        kept.keeper.close()
    assert "2 events were not written" in warnings(caplog)[-1]


def test_at_the_end_the_file_is_tried_once_more(path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch):
    kept = Kept(path, wall)
    with failing(monkeypatch):
        kept.turn(2)
    kept.keeper.turn(kept.arrived, last=True)
    assert kept.in_file() == expected((1, 1), (2, 2))
    kept.keeper.close()


def test_without_a_place_for_the_file_numbers_are_beyond_all_before(path: Path, wall: Wall):
    earlier = Kept(path, wall)
    earlier.turn(3)
    earlier.keeper.close()
    hidden = path.parent / "hidden"
    path.rename(hidden)
    path.mkdir()
    kept = Kept(path, wall)
    kept.turn(2)
    assert kept.shown == [MS + 1, MS + 2]
    path.rmdir()
    hidden.rename(path)
    kept.turn(1, due=True)
    assert kept.shown == [MS + 1, MS + 2, MS + 3]
    assert kept.in_file() == expected((1, 1), (2, 2), (3, 3), (MS + 1, 1), (MS + 2, 2), (MS + 3, 3))
    kept.keeper.close()


def test_where_the_clock_was_wrong_numbers_rise_all_the_same(path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch):
    earlier = Kept(path, wall)
    earlier.turn(3)
    earlier.keeper.close()
    kept = Kept(path, Wall(0.001))
    with failing(monkeypatch, "__init__"):
        kept.turn(1)
    assert kept.shown == [2]
    kept.turn(1, due=True)
    assert kept.shown == [2, 4], "the file ended with 3"
    assert kept.keeper.unwritten == 1
    kept.turn(1)
    assert kept.in_file() == expected((1, 1), (2, 2), (3, 3), (4, 2), (5, 3))
    kept.keeper.close()


def test_a_damaged_file_is_set_aside_and_a_new_one_begun(path: Path, wall: Wall, caplog: pytest.LogCaptureFixture):
    path.write_bytes(b"no database " * 100)
    kept = Kept(path, wall)
    kept.turn(2)
    assert kept.shown == [MS + 1, MS + 2], "beyond what may have been shown before"
    assert kept.in_file() == expected((MS + 1, 1), (MS + 2, 2))
    kept.keeper.close()
    assert path.with_name("history.db.damaged-1").read_bytes() == b"no database " * 100
    (said,) = warnings(caplog)
    assert said.startswith(f"{path} is damaged (file is not a database): it is kept as {path}.damaged-1")


def test_a_new_file_beside_a_damaged_one_is_not_the_first(path: Path, wall: Wall):
    path.with_name("history.db.damaged-7").touch()
    kept = Kept(path, wall)
    kept.turn(1)
    assert kept.shown == [MS + 1]
    kept.keeper.close()


def test_damage_that_is_found_later_is_set_aside_as_well(
    kept: Kept, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    kept.turn(2)
    damage = sqlite3.DatabaseError("malformed")
    damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    with monkeypatch.context() as patch:

        def fail(*_: object) -> None:
            raise damage

        patch.setattr(HistoryFile, "_surplus", fail)
        kept.turn(2)
    assert kept.shown == [1, 2, 3, 4]
    assert [part.name for part in path.parent.iterdir()] == ["history.db.damaged-1"]
    assert kept.keeper.read(0, 10, 0.0, 1) is None
    kept.turn(1, due=True)
    assert kept.shown == [1, 2, 3, 4, 5]
    assert kept.in_file() == expected((3, 3), (4, 4), (5, 5))
    assert "is damaged" in warnings(caplog)[0]


def test_damage_that_a_reader_finds_is_treated_alike(kept: Kept, path: Path, monkeypatch: pytest.MonkeyPatch):
    kept.turn(1)
    with failing(monkeypatch, "read", history_keeper.DamagedError("malformed")):
        assert kept.keeper.read(0, 10, 0.0, 1) is None
    assert path.with_name("history.db.damaged-1").exists()
    kept.turn(1)
    kept.turn(1, due=True)
    assert kept.shown == [1, 2, 3]
    assert kept.in_file() == expected((2, 2), (3, 3))


def test_a_damaged_file_that_cannot_be_set_aside_keeps_nobody_from_starting(
    path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    path.write_bytes(b"no database " * 100)

    def refuse(_: Path) -> None:
        raise PermissionError("not yours")

    kept = Kept(path, wall)
    with monkeypatch.context() as patch:
        patch.setattr(history_keeper, "set_aside", refuse)
        kept.turn(2)
        assert kept.shown == [MS + 1, MS + 2]
        assert "cannot be set aside: not yours" in warnings(caplog)[0]
    kept.turn(due=True)
    assert kept.in_file() == expected((MS + 1, 1), (MS + 2, 2))
    kept.keeper.close()


def test_what_becomes_too_old_goes_though_nothing_happens(path: Path, wall: Wall):
    kept = Kept(path, wall, max_age=100.0)
    kept.turn(3)
    wall.now += 60
    kept.turn(1)
    wall.now += 60
    kept.turn()
    assert len(kept.in_file()) == 4
    kept.turn(due=True)
    assert kept.in_file() == expected((4, 4))
    kept.keeper.close()


def test_what_is_much_too_much_goes_turn_by_turn(path: Path, wall: Wall):
    kept = Kept(path, wall)
    kept.turn(3500)
    kept.keeper.close()
    kept = Kept(path, wall, max_events=100)
    kept.turn()
    for left in (2500, 1500, 500, 100):
        kept.turn(due=left == 2500)
        assert len(kept.in_file()) == left
    kept.turn()
    kept.keeper.close()


def test_all_that_has_arrived_is_written_in_one_turn(kept: Kept):
    kept.turn(2000)
    assert kept.shown == list(range(1, 2001))
    assert len(kept.in_file()) == 2000
