"""Writes the journal beside the loop: one thread, one commit for all that has come since the last.

Law: a disk that takes long stops nobody but those who wait for it. What nobody waits for costs no commit of its own:
it goes along with the next, a moment later at most. A commit that fails, or takes longer than it may, is told once as
JournalFailed; what had been handed over until then counts no more. After a while the journal is opened anew and told as
JournalRetried, again and again until that works.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from gpuarbiter_server.core.events import JournalFailed, JournalRetried, JournalWritten
from gpuarbiter_server.core.records import Change

log = logging.getLogger(__name__)

# A commit that takes longer counts as failed: who waits for it gets an answer.
STALL_SECONDS = 2.0
RETRY_SECONDS = 1.0
# How long what nobody waits for may wait for others: after a crash within that time, it is undone.
LEISURE_SECONDS = 0.02
# The stall timer is this late only when the process itself did not run; then the thread's answer is on its way.
_LATE = 0.5


class JournalStore(Protocol):
    """What can be written to. Every call may take long, and raises when it failed."""

    def commit(self, changes: Sequence[Change]) -> None:
        """Makes these changes durable, all or none."""

    def reopen(self) -> None:
        """After a failure: makes it usable again."""


class JournalObserver(Protocol):
    """Hears how long commits take, and which fail."""

    def journal_committed(self, seconds: float) -> None:
        """A commit took so long. Called on the thread."""

    def journal_failed(self) -> None:
        """A commit failed, or took too long. Called on the loop."""


Told = JournalWritten | JournalFailed | JournalRetried


class JournalWriter:
    """The thread that writes, and what the loop knows of it."""

    def __init__(
        self,
        store: JournalStore,
        observer: JournalObserver,
        *,
        stall: float = STALL_SECONDS,
        retry: float = RETRY_SECONDS,
    ) -> None:
        self._store = store
        self._observer = observer
        self._stall = stall
        self._retry = retry
        self._loop = asyncio.get_running_loop()
        self._tell: Callable[[Told], None]
        # What the thread is to do, under the lock of `_news`.
        self._news = threading.Condition()
        self._changes: list[Change] = []
        self._hurried = False
        self._reopen_wanted = False
        self._closing = False
        # The number of the last change that was handed over.
        self._handed = 0
        # Counts failures: what the thread tells of a life before the last one is no news.
        self._life = 0
        # From a failure until the journal is open again, changes are not taken; and what is written first then,
        # all of it anew, may take its time.
        self._taking = True
        self._behind = False
        # Either for a commit that takes too long or for the next try.
        self._timer: asyncio.TimerHandle | None = None
        # Until what nobody waits for is written all the same.
        self._leisure: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    # -- on the loop --

    def start(self, tell: Callable[[Told], None]) -> None:
        """Begins; what becomes of the changes goes to `tell`, on the loop."""
        self._tell = tell
        self._thread.start()

    def write(self, number: int, changes: Sequence[Change], *, soon: bool = True) -> bool:
        """Has these changes written, after all before; number: that of the last. False: nothing is taken now.

        soon: somebody waits for them; otherwise they go along with the next that somebody waits for.
        """
        if not self._taking:
            return False
        with self._news:
            self._changes += changes
            self._handed = number
        if soon:
            self.hurry()
        elif self._leisure is None:
            self._leisure = self._loop.call_later(LEISURE_SECONDS, self.hurry)
        return True

    def hurry(self) -> None:
        """Somebody waits for what was handed over."""
        if self._leisure is not None:
            self._leisure.cancel()
            self._leisure = None
        with self._news:
            if not self._changes:
                return
            self._hurried = True
            self._news.notify()
        if self._timer is None and not self._behind:
            self._expect_progress()

    async def close(self, seconds: float) -> None:
        """Writes what is left, for at most so long, and ends the thread."""
        self._set_timer(None)
        if self._leisure is not None:
            self._leisure.cancel()
        if self._thread.ident is None:
            return  # it was never started
        with self._news:
            self._closing = True
            self._news.notify()
        await asyncio.to_thread(self._thread.join, seconds)

    def _expect_progress(self) -> None:
        due = self._loop.time() + self._stall
        self._set_timer(self._loop.call_at(due, self._stalled, due))

    def _set_timer(self, timer: asyncio.TimerHandle | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer

    def _stalled(self, due: float) -> None:
        if self._loop.time() - due > _LATE:
            self._expect_progress()
        else:
            self._on_failed(self._life, f"a commit has not finished for {self._stall:g} s")

    def _on_written(self, life: int, number: int) -> None:
        if life != self._life:
            return
        self._behind = False
        self._set_timer(None)
        if self._handed > number:
            self._expect_progress()
        self._tell(JournalWritten(number))

    def _on_failed(self, life: int, detail: str) -> None:
        if life != self._life:
            return
        log.error("the journal cannot be written, so nothing is granted for now: %s", detail)
        with self._news:
            self._life += 1
            self._changes.clear()
            self._hurried = False
        self._taking, self._behind = False, True
        self._tell(JournalFailed(detail))
        self._try_again_later()
        _shown(self._observer.journal_failed)

    def _try_again_later(self) -> None:
        self._set_timer(self._loop.call_later(self._retry, self._try_again))

    def _try_again(self) -> None:
        with self._news:
            self._reopen_wanted = True
            self._news.notify()

    def _on_reopened(self, error: str) -> None:
        self._set_timer(None)
        if error:
            log.warning("the journal still cannot be written: %s", error)
            self._try_again_later()
        else:
            log.info("the journal can be opened again, and is written anew")
            self._taking = True
            self._tell(JournalRetried())

    # -- on the thread --

    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._hurried or self._reopen_wanted or self._closing)
                reopen, self._reopen_wanted = self._reopen_wanted, False
                changes, self._changes, self._hurried = self._changes, [], False
                number, life = self._handed, self._life
                closing = self._closing
            if reopen:
                self._reopen()
            if changes:
                self._commit(changes, number, life)
            elif closing:
                return

    def _commit(self, changes: list[Change], number: int, life: int) -> None:
        began = time.perf_counter()
        try:
            self._store.commit(changes)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is not written
            self._on_loop(self._on_failed, life, str(error))
        else:
            self._on_loop(self._on_written, life, number)
            _shown(self._observer.journal_committed, time.perf_counter() - began)

    def _reopen(self) -> None:
        try:
            self._store.reopen()
        except Exception as error:  # noqa: BLE001 -- whatever it is, it cannot be written to
            self._on_loop(self._on_reopened, str(error))
        else:
            self._on_loop(self._on_reopened, "")

    def _on_loop(self, function: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # What a closed loop answers.
            self._loop.call_soon_threadsafe(function, *arguments)


def _shown(function: Callable[..., None], *arguments: object) -> None:
    """An observer that fails costs the journal nothing."""
    try:
        function(*arguments)
    except Exception:
        log.exception("an observer of the journal failed")
