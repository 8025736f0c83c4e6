"""The thread of the history: it keeps its file to itself, and a disk that hangs to itself, too."""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.polling import async_until, until
from gpuarbiter_server.store import history as history_module
from gpuarbiter_server.store import history_writer
from gpuarbiter_server.store.history import History
from gpuarbiter_server.store.history_file import HistoryFile

from .histories import Follower, events, history, numbers, observe, opened


class Disk:
    """One that can hang or fail."""

    def __init__(self) -> None:
        self.works = threading.Event()
        self.works.set()
        self.busy = threading.Event()
        self.error: Exception | None = None

    def wait(self) -> None:
        """As long as it hangs."""
        if not self.works.is_set():
            self.busy.set()
            assert self.works.wait(60)
            self.busy.clear()
        if self.error is not None:
            raise self.error

    async def hang(self, kept: History) -> None:
        """From now on, with an event on its way to it."""
        self.works.clear()
        observe(kept, [0])
        await async_until(self.busy.is_set)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    one = Disk()
    for method in ("append", "read"):
        original = getattr(HistoryFile, method)

        def slowly(*arguments: object, original: object = original) -> object:
            one.wait()
            assert callable(original)
            return original(*arguments)

        monkeypatch.setattr(HistoryFile, method, slowly)
    yield one
    one.works.set()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


def thread_of(kept: History) -> threading.Thread:
    assert kept._writer is not None
    return kept._writer._thread


async def test_it_goes_on_after_a_restart(path: Path):
    async with opened(path) as kept:
        observe(kept, range(3))
        assert await numbers(kept) == [1, 2, 3]
    await async_until(lambda: not thread_of(kept).is_alive())
    kept = history(path)
    observe(kept, range(3, 5))  # before it is started, as the start itself is
    assert await numbers(kept) == []
    kept.start()
    assert [(one.sequence, one.recorded.detail) for one in await events(kept)] == [
        (number + 1, f"event {number}") for number in range(5)
    ]
    await kept.close()
    await kept.close()
    observe(kept, range(3))
    assert await numbers(kept) == [4, 5], "what is in memory"


async def test_what_was_observed_is_written_when_it_is_closed(path: Path):
    async with opened(path) as kept:
        observe(kept, range(5000))
    async with opened(path) as kept:
        assert len(await events(kept)) == 5000


async def test_one_that_was_never_started_is_closed_all_the_same(path: Path):
    kept = history(path)
    await kept.close()
    assert not any(path.parent.iterdir())


async def test_an_event_is_seen_once_it_is_committed_not_before(
    path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(history_writer, "PATIENCE_SECONDS", 0.02)
    async with opened(path) as kept:
        observe(kept, range(2))
        follower = Follower(kept)
        await async_until(lambda: follower.numbers == [1, 2])
        await disk.hang(kept)
        observe(kept, range(3))
        assert await numbers(kept) == [1, 2], "the answer does not wait for ever"
        assert follower.numbers == [1, 2]
        disk.works.set()
        await async_until(lambda: follower.numbers == [1, 2, 3, 4, 5, 6])
        assert await numbers(kept) == [1, 2, 3, 4, 5, 6]
        await follower.stop()


async def test_a_reader_inside_the_transaction_of_another_connection_is_no_way_in(path: Path):
    async with opened(path) as kept:
        observe(kept, range(3))
        assert len(await events(kept)) == 3
        other = sqlite3.connect(path, timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("SELECT * FROM events")
        other.close()


async def test_a_disk_that_hangs_costs_those_who_ask_for_what_is_on_it(
    path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(history_module, "MAX_IN_MEMORY", 5)
    async with opened(path) as kept:
        observe(kept, range(10))
        assert await numbers(kept) == list(range(1, 11))
        monkeypatch.setattr(history_writer, "PATIENCE_SECONDS", 0.02)
        await disk.hang(kept)
        assert await numbers(kept) == [6, 7, 8, 9, 10], "what is in memory"
        disk.works.set()
        monkeypatch.setattr(history_writer, "PATIENCE_SECONDS", 10.0)
        assert await numbers(kept) == list(range(1, 12))


async def test_a_disk_that_hangs_does_not_keep_the_arbiter_from_ending(
    path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(history_writer, "LAST_SECONDS", 0.02)
    async with opened(path) as kept:
        await disk.hang(kept)
        asked = asyncio.create_task(numbers(kept))
        await asyncio.sleep(0)
    assert thread_of(kept).daemon
    assert thread_of(kept).is_alive()
    disk.works.set()
    assert await asked == [1], "who asked before is answered"
    await asyncio.to_thread(thread_of(kept).join)


def test_one_that_outlives_the_loop_is_no_error(path: Path, disk: Disk):
    kept = history(path)

    async def leave() -> None:
        kept.start()
        await disk.hang(kept)

    asyncio.run(leave())
    disk.works.set()
    assert kept._writer is not None
    kept._writer._closing = True
    kept._writer._jobs.put(lambda: None)
    until(lambda: not thread_of(kept).is_alive())


async def test_a_reader_that_is_gone_when_its_answer_comes_is_no_error(path: Path, disk: Disk):
    async with opened(path) as kept:
        await disk.hang(kept)
        asked = [asyncio.create_task(numbers(kept)) for _ in range(3)]
        await asyncio.sleep(0)
        for task in asked:
            task.cancel()
        disk.works.set()
        assert await numbers(kept) == [1]
        assert all(task.cancelled() for task in asked)


async def test_a_disk_that_fails_is_no_end_of_the_history(
    path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("gpuarbiter_server.store.history_keeper.RETRY_SECONDS", 0.01)
    async with opened(path) as kept:
        follower = Follower(kept)
        observe(kept, range(2))
        assert await numbers(kept) == [1, 2]
        disk.error = OSError("input/output error")
        observe(kept, range(3))
        assert await numbers(kept) == [1, 2, 3, 4, 5]
        await async_until(lambda: follower.numbers == [1, 2, 3, 4, 5])
        disk.error = None
        await async_until(lambda: kept._writer is not None and kept._writer._keeper._writable)
        observe(kept, range(1))
        await async_until(lambda: follower.numbers == [1, 2, 3, 4, 5, 6])
        await follower.stop()
    async with opened(path) as kept:
        assert await numbers(kept) == [1, 2, 3, 4, 5, 6]
        assert kept.unwritten == 0
    assert all(record.levelno <= logging.WARNING for record in caplog.records)


async def test_a_long_history_is_read_page_by_page(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(history_module, "MAX_IN_MEMORY", 1000)
    async with opened(path) as kept:
        for first in range(0, 20_000, 2000):
            observe(kept, range(first, first + 2000))
            assert await numbers(kept, first + 1999) == [first + 2000]
        pages: list[int] = []
        original = HistoryFile.read

        def counted(file: HistoryFile, after: int, before: int, since: float, most: int) -> object:
            page = original(file, after, before, since, most)
            pages.append(len(page.events))
            return page

        monkeypatch.setattr(HistoryFile, "read", counted)
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        others = asyncio.create_task(turn())
        assert await numbers(kept) == list(range(1, 20_001))
        others.cancel()
        assert max(pages) == 50
        assert sum(pages) == 19_000
        assert turns > len(pages), "the loop went on between any two pages"
        pages.clear()
        assert await numbers(kept, limit=3) == [1, 2, 3]
        assert pages == [3]


async def test_what_cannot_be_read_is_passed_over_and_told_once(path: Path, caplog: pytest.LogCaptureFixture):
    async with opened(path) as kept:
        observe(kept, range(5))
    with sqlite3.connect(path) as other:
        other.execute("UPDATE events SET body = x'00' WHERE sequence IN (2, 4)")
    other.close()
    async with opened(path) as kept:
        assert await numbers(kept) == [1, 3, 5]
        assert await numbers(kept, limit=2) == [1, 3]
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == "event 2 of the history cannot be read; such events are passed over"
