"""The file of the history: what is kept in it, what goes, and what is no such file."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from gpuarbiter_server.core.effects import Recorded
from gpuarbiter_server.core.model import (
    EndReason,
    EventType,
    Holder,
    ProcessId,
    WorkContext,
    WorkDevice,
    WorkReport,
    WorkResult,
    YieldReason,
)
from gpuarbiter_server.store.history_aside import any_aside, set_aside
from gpuarbiter_server.store.history_file import Bounds, DamagedError, HistoryEvent, HistoryFile, _mark

from .histories import LARGE, LONG, MANY

EVERYTHING = Recorded(
    EventType.ENDED,
    lease_id="lease",
    request_id="request",
    task_type="ASR",
    holder=Holder("client", 12, "ns", "pod", "container", 34, 56, ProcessId(12, 56)),
    gpus=("gpu:0", "gpu:1"),
    fencing_token=2**60,
    detail="Größe 🙂",
    waited=0.1,
    held=1e-9,
    end_reason=EndReason.HOLDER_DIED,
    yield_reason=YieldReason.QUANTUM,
    outcome="granted",
    report=WorkReport(WorkResult.OUT_OF_MEMORY, WorkDevice.CPU, 3, 4, 5.5),
    context=WorkContext("job", "session", 0, "stage", (("a", "b"), ("c", "d"))),
    traceparent="00-0-0-01",
)


def opened(path: Path, *, max_events: int = MANY, max_age: float = LONG, max_bytes: int = LARGE) -> HistoryFile:
    return HistoryFile(path, Bounds(max_events, max_age, max_bytes))


def some(first: int, last: int, *, time: float = 100.0, size: int = 0) -> list[HistoryEvent]:
    return [
        HistoryEvent(number, time, Recorded(EventType.QUEUED, detail=f"{number} {'x' * size}"))
        for number in range(first, last + 1)
    ]


def numbers(file: HistoryFile) -> list[int]:
    return [row.sequence for row in file.read(0, 2**62, 0.0, MANY).events]


def size(path: Path) -> int:
    return sum(part.stat().st_size for part in path.parent.glob(path.name + "*"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


def test_what_was_written_is_read_again_after_it_was_closed(path: Path):
    with closing(opened(path)) as file:
        assert file.last == 0
        file.append([HistoryEvent(1, 100.25, EVERYTHING), HistoryEvent(2, 101.0, Recorded(EventType.STARTED))], 101.0)
    with closing(opened(path)) as file:
        assert file.last == 2
        upto, rows = file.read(0, 10, 0.0, 50)
        assert upto == 9
        assert [row.decoded() for row in rows if not isinstance(row, HistoryEvent)] == [
            HistoryEvent(1, 100.25, EVERYTHING),
            HistoryEvent(2, 101.0, Recorded(EventType.STARTED)),
        ]
    assert path.stat().st_mode & 0o777 == 0o600
    assert [part.name for part in path.parent.iterdir()] == ["history.db"], "its log went into it"


def test_a_page_says_how_far_it_goes(path: Path):
    with closing(opened(path)) as file:
        file.append(some(1, 5) + some(6, 10, time=200.0), 200.0)
        for after, before, since, most, expected in (
            (0, 11, 0.0, 3, (3, [1, 2, 3])),
            (3, 11, 0.0, 10, (10, [4, 5, 6, 7, 8, 9, 10])),
            (0, 4, 0.0, 10, (3, [1, 2, 3])),
            (0, 11, 150.0, 2, (7, [6, 7])),
            (0, 11, 300.0, 2, (10, [])),
        ):
            upto, rows = file.read(after, before, since, most)
            assert (upto, [row.sequence for row in rows]) == expected


def test_a_number_is_given_once_even_when_all_events_are_gone(path: Path):
    with closing(opened(path)) as file:
        file.append(some(1, 7), 100.0)
    with closing(opened(path, max_age=10.0)) as file:
        assert not file.append([], 200.0)
        assert numbers(file) == []
    with closing(opened(path)) as file:
        assert file.last == 7


def test_events_are_written_all_or_none(path: Path):
    with closing(opened(path)) as file:
        file.append(some(1, 3), 100.0)
        with pytest.raises(sqlite3.IntegrityError):
            file.append(some(4, 5) + some(2, 2), 100.0)
        assert (numbers(file), file.last) == ([1, 2, 3], 3)
        file.append(some(4, 4), 100.0)
        assert numbers(file) == [1, 2, 3, 4]


# -- bounds --


def test_the_oldest_go_when_there_are_too_many(path: Path):
    with closing(opened(path, max_events=5)) as file:
        file.append(some(1, 3), 100.0)
        assert numbers(file) == [1, 2, 3]
        file.append(some(4, 8), 100.0)
        assert numbers(file) == [4, 5, 6, 7, 8]
    with closing(opened(path, max_events=2)) as file:
        assert numbers(file) == [4, 5, 6, 7, 8]
        file.append([], 100.0)
        assert numbers(file) == [7, 8]


def test_events_are_counted_not_their_numbers(path: Path):
    with closing(opened(path, max_events=5)) as file:
        file.append(some(1, 3), 100.0)
        file.append(some(1_000_000, 1_000_001), 100.0)
        assert numbers(file) == [1, 2, 3, 1_000_000, 1_000_001]


def test_the_oldest_go_when_they_are_too_old(path: Path):
    with closing(opened(path, max_age=50.0)) as file:
        file.append(some(1, 3) + some(4, 6, time=140.0), 140.0)
        assert not file.append([], 150.0)
        assert numbers(file) == [1, 2, 3, 4, 5, 6]
        assert not file.append([], 150.5)
        assert numbers(file) == [4, 5, 6]


def test_a_clock_that_was_set_back_makes_no_gaps(path: Path):
    with closing(opened(path, max_age=50.0)) as file:
        file.append(some(1, 1, time=500.0) + some(2, 2), 100.0)
        file.append([], 200.0)
        assert numbers(file) == [1, 2], "what is later in the file stays as long as what is earlier"
        file.append([], 600.0)
        assert numbers(file) == []


def test_the_oldest_go_when_the_file_is_too_large(path: Path):
    bound, slack = 512 * 1024, 3 * 1024**2
    with closing(opened(path, max_bytes=bound)) as file:
        for first in range(1, 40_000, 250):
            file.append(some(first, first + 249, size=100), 100.0)
            assert size(path) < bound + slack
        kept = numbers(file)
    assert kept == list(range(kept[0], 40_001))
    assert bound / 2 < len(kept) * 140 < bound
    assert path.stat().st_size < 2 * bound + 1024**2


def test_large_events_go_as_small_ones_do(path: Path):
    bound = 4 * 1024**2
    with closing(opened(path, max_bytes=bound)) as file:
        for first in range(1, 600, 10):
            file.append(some(first, first + 9, size=100_000), 100.0)
            assert size(path) < bound + 4 * 1024**2
        assert 30 < len(numbers(file)) <= bound // 100_000


def test_much_that_is_too_much_goes_step_by_step(path: Path):
    with closing(opened(path)) as file:
        file.append(some(1, 10_000, size=400), 100.0)
    before = size(path)
    steps = 1
    with closing(opened(path, max_events=500, max_bytes=1024**2)) as file:
        while file.append([], 100.0):
            steps += 1
        assert numbers(file) == list(range(9501, 10_001))
        assert steps == 10
        for _ in range(3):
            file.append([], 100.0)
    assert before > 4 * 1024**2
    assert size(path) <= 2 * 1024**2 + 16_384, "the file became smaller"


# -- damage --


def test_a_row_that_is_not_what_was_written_is_none(path: Path):
    with closing(opened(path)) as file:
        file.append(some(1, 6), 100.0)
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE events SET body = replace(body, 'detail', 'detais') WHERE sequence = 2")
        other.execute("UPDATE events SET time = 101 WHERE sequence = 3")
        other.execute("UPDATE events SET body = 7 WHERE sequence = 4")
        other.execute("UPDATE events SET body = CAST(x'ff' AS TEXT) WHERE sequence = 5")
    with closing(opened(path)) as file:
        rows = [row for row in file.read(0, 10, 0.0, 50).events if not isinstance(row, HistoryEvent)]
    assert [row.sequence for row in rows if row.decoded()] == [1, 6]


def test_a_row_of_another_version_is_none(path: Path):
    with closing(opened(path)) as file:
        file.append(some(1, 1), 100.0)
        (row,) = file.read(0, 10, 0.0, 50).events
    assert not isinstance(row, HistoryEvent)
    body = b'{"type":999}'
    assert row._replace(body=body, mark=_mark(row.sequence, row.time, body)).decoded() is None


def test_what_cannot_be_encoded_is_kept_without_its_words(path: Path):
    with closing(opened(path)) as file:
        file.append([HistoryEvent(1, 100.0, Recorded(EventType.QUEUED, detail="\ud800"))], 100.0)
        (row,) = file.read(0, 10, 0.0, 50).events
        assert not isinstance(row, HistoryEvent)
        assert row.decoded() == HistoryEvent(1, 100.0, Recorded(EventType.QUEUED))


def nonsense(path: Path) -> None:
    path.write_bytes(b"no database " * 1000)


def of_another_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 2")


def of_another_kind(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE others (id)")
        other.execute("PRAGMA user_version = 1")


def overwritten(path: Path) -> None:
    with closing(opened(path)) as file:
        file.append(some(1, 1000, size=100), 100.0)
    with path.open("r+b") as raw:
        raw.seek(4096)
        raw.write(b"\xff" * 8192)


@pytest.mark.parametrize("make", [nonsense, of_another_version, of_another_kind, overwritten])
def test_what_is_none_is_named(path: Path, make: Callable[[Path], None]):
    make(path)
    with pytest.raises(DamagedError):
        opened(path)


def test_damage_that_is_found_later_is_named_then(path: Path):
    with closing(opened(path)) as file:
        file.append(some(1, 10_000, size=400), 100.0)
    # When it is opened all of it is looked at, but not all of it is remembered.
    with closing(opened(path)) as file:
        with path.open("r+b") as raw:
            raw.seek(60 * 4096)
            raw.write(b"\xff" * 4096)
        with pytest.raises(DamagedError):
            file.read(0, 20_000, 0.0, MANY)
    with pytest.raises(DamagedError):
        opened(path)


def test_a_place_where_there_can_be_none_is_no_damage(tmp_path: Path):
    with pytest.raises(OSError, match="No such file"):
        opened(tmp_path / "missing" / "history.db")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        opened(tmp_path / "folder")


def test_one_uses_it_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gpuarbiter_server.store.history_file._BUSY_SECONDS", 0.0)
    with closing(opened(path)), pytest.raises(sqlite3.OperationalError, match="locked"):
        opened(path)


# -- setting aside --


def test_the_newest_few_of_the_damaged_are_kept(path: Path):
    assert not any_aside(path)
    for number in range(1, 6):
        path.write_text(f"damaged {number}")
        path.with_name("history.db-wal").write_text(f"log {number}")
        path.with_name("history.db-shm").write_text("")
        assert set_aside(path).name == f"history.db.damaged-{number}"
        assert any_aside(path)
    path.with_name("history.db.damaged-by-hand").write_text("")
    assert sorted(part.name for part in path.parent.iterdir()) == [
        "history.db.damaged-3",
        "history.db.damaged-3-wal",
        "history.db.damaged-4",
        "history.db.damaged-4-wal",
        "history.db.damaged-5",
        "history.db.damaged-5-wal",
        "history.db.damaged-by-hand",
    ]
    assert path.with_name("history.db.damaged-4").read_text() == "damaged 4"
    assert path.with_name("history.db.damaged-4-wal").read_text() == "log 4"
