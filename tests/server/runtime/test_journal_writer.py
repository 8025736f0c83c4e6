"""The writer of the journal beside a loop: group commit, failure, stall, and the way back."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from fakes.polling import async_until
from gpuarbiter_server.core.events import JournalFailed, JournalRetried, JournalWritten
from gpuarbiter_server.core.records import LeaseDropped
from gpuarbiter_server.runtime import journal_writer
from gpuarbiter_server.runtime.journal_writer import JournalWriter, Told
from server.runtime.journals import Noting, Store


def change(number: int) -> LeaseDropped:
    return LeaseDropped(str(number))


class Writing:
    """A writer with a store, and all that it tells."""

    def __init__(self, *, stall: float = 60.0, retry: float = 0.01) -> None:
        self.store = Store()
        self.observer = Noting()
        self.told: list[Told] = []
        self.writer = JournalWriter(self.store, self.observer, stall=stall, retry=retry)
        self.writer.start(self.told.append)

    def write(self, number: int) -> bool:
        return self.writer.write(number, [change(number)])

    async def until_told(self, *told: Told) -> None:
        await async_until(lambda: self.told == list(told), f"for {told}, and not {self.told}")


@pytest.fixture
async def writing() -> AsyncIterator[Writing]:
    made = Writing()
    yield made
    made.store.gate.set()
    await made.writer.close(5.0)


async def test_changes_are_written_and_told(writing: Writing):
    assert writing.write(1)
    await writing.until_told(JournalWritten(1))
    assert writing.write(2)
    await writing.until_told(JournalWritten(1), JournalWritten(2))
    assert writing.store.commits == [[change(1)], [change(2)]]
    assert writing.observer.committed == 2


async def test_what_comes_during_a_commit_shares_the_next_one(writing: Writing):
    writing.store.gate.clear()
    writing.write(1)
    await async_until(writing.store.entered.is_set, "for the commit to begin")
    writing.write(2)
    writing.write(3)
    writing.store.gate.set()
    await writing.until_told(JournalWritten(1), JournalWritten(3))
    assert writing.store.commits == [[change(1)], [change(2), change(3)]]


async def test_what_nobody_waits_for_goes_along_with_what_somebody_does(
    writing: Writing, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(journal_writer, "LEISURE_SECONDS", 3600.0)
    assert writing.writer.write(1, [change(1)], soon=False)
    assert writing.writer.write(2, [change(2)], soon=False)
    assert writing.write(3)
    await writing.until_told(JournalWritten(3))
    assert writing.store.commits == [[change(1), change(2), change(3)]]


async def test_what_nobody_waits_for_is_written_all_the_same(writing: Writing):
    assert writing.writer.write(1, [change(1)], soon=False)
    await writing.until_told(JournalWritten(1))
    assert writing.writer.write(2, [change(2)], soon=False), "and again"
    await writing.until_told(JournalWritten(1), JournalWritten(2))


async def test_who_comes_to_wait_later_has_it_hurried(writing: Writing, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journal_writer, "LEISURE_SECONDS", 3600.0)
    writing.writer.hurry()
    writing.writer.write(1, [change(1)], soon=False)
    writing.writer.hurry()
    await writing.until_told(JournalWritten(1))


async def test_what_nobody_waits_for_is_written_before_the_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journal_writer, "LEISURE_SECONDS", 3600.0)
    writing = Writing()
    writing.writer.write(1, [change(1)], soon=False)
    await writing.writer.close(5.0)
    assert writing.store.commits == [[change(1)]]


async def test_a_failure_is_told_once_and_takes_what_waited_along(writing: Writing):
    writing.store.gate.clear()
    writing.write(1)
    await async_until(writing.store.entered.is_set, "for the commit to begin")
    writing.write(2)
    writing.store.fault = "No space left on device"
    writing.store.gate.set()
    await async_until(lambda: bool(writing.told), "for the failure")
    assert writing.told == [JournalFailed("No space left on device")]
    assert not writing.write(3)
    assert writing.observer.failed == 1
    await async_until(lambda: writing.store.reopened > 1, "for it to be tried again and again")
    writing.store.fault = ""
    await writing.until_told(JournalFailed("No space left on device"), JournalRetried())
    assert writing.write(4)
    await async_until(lambda: writing.told[-1] == JournalWritten(4), "for it to be back")
    assert writing.store.commits == [[change(4)]]


async def test_it_may_fail_again_while_it_is_written_anew(writing: Writing):
    writing.store.fault = "bad"
    writing.write(1)
    await async_until(lambda: bool(writing.told), "for the failure")
    writing.store.fault = ""
    await async_until(lambda: writing.told[-1] == JournalRetried(), "for the next try")
    writing.store.fault = "bad again"
    writing.write(2)
    await async_until(lambda: writing.told[-1] == JournalFailed("bad again"), "for the next failure")
    writing.store.fault = ""
    await async_until(lambda: writing.told[-1] == JournalRetried(), "for the next try")
    writing.write(3)
    await async_until(lambda: writing.told[-1] == JournalWritten(3), "for it to be back")


async def test_a_commit_that_takes_too_long_has_failed_whatever_becomes_of_it():
    writing = Writing(stall=0.05)
    writing.store.gate.clear()
    writing.write(1)
    await async_until(lambda: bool(writing.told), "for the stall")
    assert writing.told == [JournalFailed("a commit has not finished for 0.05 s")]
    assert not writing.write(2)
    writing.store.gate.set()
    await async_until(lambda: writing.told[-1] == JournalRetried(), "for the disk to be back")
    # What was written late is not told as written, and what is written anew may take its time.
    assert writing.store.commits == [[change(1)]]
    writing.store.gate.clear()
    writing.store.entered.clear()
    writing.write(3)
    await async_until(writing.store.entered.is_set, "for the commit to begin")
    await asyncio.sleep(0)
    assert writing.writer._timer is None
    writing.store.gate.set()
    await async_until(lambda: writing.told[-1] == JournalWritten(3), "for it to be back")
    await writing.writer.close(5.0)


async def test_a_process_that_did_not_run_is_no_stall(monkeypatch: pytest.MonkeyPatch):
    writing = Writing()
    writing.store.gate.clear()
    writing.write(1)
    monkeypatch.setattr(journal_writer, "_LATE", -1.0)
    writing.writer._stalled(asyncio.get_running_loop().time())
    assert not writing.told
    writing.store.gate.set()
    await writing.until_told(JournalWritten(1))
    await writing.writer.close(5.0)


async def test_what_is_left_is_written_at_the_end():
    writing = Writing()
    writing.store.gate.clear()
    writing.write(1)
    await async_until(writing.store.entered.is_set, "for the commit to begin")
    writing.write(2)
    closing = asyncio.create_task(writing.writer.close(5.0))
    await asyncio.sleep(0)
    writing.store.gate.set()
    await closing
    assert writing.store.commits == [[change(1)], [change(2)]]


async def test_a_disk_that_hangs_does_not_keep_it_from_ending():
    writing = Writing()
    writing.store.gate.clear()
    writing.write(1)
    await writing.writer.close(0.01)
    writing.store.gate.set()


async def test_one_that_never_began_can_be_closed():
    await JournalWriter(Store(), Noting()).close(5.0)


async def test_an_observer_that_fails_costs_nothing(caplog: pytest.LogCaptureFixture):
    writing = Writing()
    writing.observer.journal_committed = None  # type: ignore[assignment,method-assign]
    writing.write(1)
    await writing.until_told(JournalWritten(1))
    writing.write(2)
    await writing.until_told(JournalWritten(1), JournalWritten(2))
    await writing.writer.close(5.0)
    assert "an observer of the journal failed" in caplog.text
