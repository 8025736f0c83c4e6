"""The thread that keeps the file of the history, and the way to it from the loop.

Law: nobody waits for the disk but this thread. To hand an event over takes a microsecond whatever the disk
does, and what waits is bounded. Who asks for events waits for an answer for so long, and no longer.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

from gpuarbiter_server.core.effects import Recorded
from gpuarbiter_server.store.history_file import Bounds, HistoryEvent, Page
from gpuarbiter_server.store.history_keeper import ROOM, Arrived, HistoryKeeper

T = TypeVar("T")

# Between two looks at what has arrived while more and more arrives: each costs a commit, and time of the loop's.
_PACE_SECONDS = 0.1
# How long the loop waits for an answer of the thread, and for its end.
PATIENCE_SECONDS = 10.0
LAST_SECONDS = 2.0


class HistoryWriter:
    """Has events written. Publishes, on the loop, the last number there is and the events that are new."""

    def __init__(
        self,
        path: Path,
        bounds: Bounds,
        *,
        wall: Callable[[], float],
        publish: Callable[[int, list[HistoryEvent]], None],
    ) -> None:
        self._wall = wall
        self._keeper = HistoryKeeper(path, bounds, wall=wall, show=lambda last, new: self._on_loop(publish, last, new))
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._loop: asyncio.AbstractEventLoop
        self._ended = asyncio.Event()
        self._observed = 0
        # From the loop to the thread: events, and what is to be done besides writing them.
        self._arrived: deque[Arrived] = deque(maxlen=ROOM)
        self._jobs: SimpleQueue[Callable[[], object]] = SimpleQueue()
        # Whether the thread looks at what has arrived without being told.
        self._awake = False
        self._closing = False

    # -- on the loop --

    @property
    def unwritten(self) -> int:
        """Events that will never be in the file."""
        return self._keeper.unwritten

    def start(self) -> None:
        """Begins; what was taken before counts, too."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def take(self, recorded: Recorded) -> None:
        """Has an event written."""
        self._observed += 1
        self._arrived.append(Arrived(self._observed, self._wall(), recorded))
        if not self._awake:
            self._awake = True
            self._jobs.put(_nothing)

    async def settled(self) -> None:
        """Returns when what was taken so far is published, or that takes too long."""
        await self._ask(_nothing)

    async def read(self, after: int, before: int, since: float, most: int) -> Page | None:
        """The first events between two numbers, from a time on; None where the file cannot be read."""
        return await self._ask(lambda: self._keeper.read(after, before, since, most))

    async def close(self) -> None:
        """Writes what is left and ends the thread; leaves it behind when that takes too long."""
        if self._thread.ident is None:
            return  # it was never started
        self._closing = True
        self._jobs.put(_nothing)
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_SECONDS):
                await self._ended.wait()

    async def _ask(self, job: Callable[[], T]) -> T | None:
        """What the thread answers; None when it does not."""
        if self._closing or self._thread.ident is None:
            return None
        answer: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(lambda: self._on_loop(_settle, answer, job()))
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await answer
        return None

    # -- on the thread --

    def _run(self) -> None:
        while not self._closing:
            job = self._next_job()
            # Kept awake by news, so that a flood of it costs the loop no wake-ups.
            self._awake |= self._keeper.turn(self._arrived)
            job()
        self._keeper.turn(self._arrived, last=True)
        with suppress(Empty):
            while True:
                self._jobs.get_nowait()()
        self._keeper.close()
        self._on_loop(self._ended.set)

    def _next_job(self) -> Callable[[], object]:
        wait = max(0.0, self._keeper.due - time.monotonic())
        try:
            return self._jobs.get(timeout=min(wait, _PACE_SECONDS) if self._awake else wait)
        except Empty:
            # From here on an event wakes us; those that came before are looked at now.
            self._awake = False
            return _nothing

    def _on_loop(self, function: Callable[..., object], *arguments: object) -> None:
        with suppress(RuntimeError):  # What a closed loop answers.
            self._loop.call_soon_threadsafe(function, *arguments)


def _nothing() -> None:
    """A job that only wakes the thread."""


def _settle(answer: asyncio.Future[T], value: T) -> None:
    if not answer.done():
        answer.set_result(value)
