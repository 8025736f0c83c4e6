"""Numbers what happens, writes it to the file of the history, and goes on without the file where that fails.

Law: an event is shown once it is committed, so that after a crash no number means another event than before.
Where the file fails, events are shown all the same and kept for it, as many as there is room for, until it can
be written again. Where the last number is not known, numbers go on with the milliseconds of the Unix time:
beyond all before, as long as there were fewer than 1000 events a second. One thread uses it; see HistoryWriter.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from gpuarbiter_server.core.effects import Recorded
from gpuarbiter_server.store.history_aside import any_aside, set_aside
from gpuarbiter_server.store.history_file import Bounds, DamagedError, HistoryEvent, HistoryFile, Page

log = logging.getLogger(__name__)

T = TypeVar("T")

# Events that wait for their number or for the file. The oldest are lost first.
ROOM = 10_000
# After a failure: until the file is tried again.
RETRY_SECONDS = 5.0
# Between two looks at what has become too old.
_AGING_SECONDS = 60.0
# Events in one commit.
_BATCH = 250


class Arrived(NamedTuple):
    """What happened, and as the how manyth; time in Unix seconds."""

    nth: int
    time: float
    recorded: Recorded


class HistoryKeeper:
    """The file and what is to be in it. Shows the last number there is, with the events that are new."""

    def __init__(
        self,
        path: Path,
        bounds: Bounds,
        *,
        wall: Callable[[], float],
        show: Callable[[int, list[HistoryEvent]], None],
    ) -> None:
        self._path = path
        self._bounds = bounds
        self._wall = wall
        self._show_on = show
        # None: where numbers begin is not known yet.
        self._last: int | None = None
        self._last_nth = 0
        self._shown = 0
        # A file that cannot be written may still be read.
        self._file: HistoryFile | None = None
        self._writable = False
        self._failed = False
        self._pending: deque[HistoryEvent] = deque(maxlen=ROOM)
        # Monotonic: when the file is to be tried again, or what is too old is to go.
        self.due = 0.0
        # Events that will never be in the file.
        self.unwritten = 0

    def turn(self, arrived: deque[Arrived], *, last: bool = False) -> bool:
        """Takes what has arrived, and does what is due, or at the last turn all that can be; whether there was news."""
        due = last or time.monotonic() >= self.due
        if due and not self._writable:
            self._open()
            due = False
        news = self._number(arrived)
        while self._writable and (self._pending or due):
            due = False
            self._write()
        self._show(self._pending)
        return news

    def read(self, after: int, before: int, since: float, most: int) -> Page | None:
        """The first events between two numbers, from a time on; None where the file cannot be read."""
        return self._attempt(lambda file: file.read(after, before, since, most))

    def close(self) -> None:
        """Ends the use of the file."""
        lost = self.unwritten + len(self._pending)
        if lost:
            log.warning("%d events were not written to %s", lost, self._path)
        self._let_go()

    def _number(self, arrived: deque[Arrived]) -> bool:
        """Gives events their numbers; one that was lost before has its number, too."""
        assert self._last is not None, "an attempt to open the file has been made"
        count = len(arrived)
        for _ in range(count):
            nth, moment, recorded = arrived.popleft()
            self._last += nth - self._last_nth
            self.unwritten += nth - self._last_nth - 1 + (len(self._pending) == ROOM)
            self._last_nth = nth
            self._pending.append(HistoryEvent(self._last, moment, recorded))
        return bool(count)

    def _write(self) -> None:
        batch = list(islice(self._pending, _BATCH))
        more = self._attempt(lambda file: file.append(batch, self._wall()))
        if more is not None:
            self.due = time.monotonic() + (0.0 if more else _AGING_SECONDS)
            for _ in batch:
                self._pending.popleft()
            self._show(batch)

    def _show(self, events: Iterable[HistoryEvent]) -> None:
        new = [event for event in events if event.sequence > self._shown]
        if new:
            self._shown = new[-1].sequence
            self._show_on(self._shown, new)

    def _attempt(self, use: Callable[[HistoryFile], T]) -> T | None:
        """What the file answers; None where it fails."""
        if self._file is None:
            return None
        try:
            return use(self._file)
        except DamagedError as error:
            self._set_aside(error)
            self._fail(error)
        except Exception as error:  # noqa: BLE001 -- whatever it is, the file is of no use now
            self._fail(error)
        return None

    def _open(self) -> None:
        self._let_go()
        try:
            self._file = self._opened()
            last = self._file.last
            if not last and self._last is None and any_aside(self._path):
                last = self._never_used()
        except Exception as error:  # noqa: BLE001 -- whatever it is, there is no file now
            self._fail(error)
            return
        self.due = time.monotonic() + _AGING_SECONDS
        self._begin_after(last)
        if self._failed:
            log.warning("%s is written again; %d events are missing in it", self._path, self.unwritten)
        self._writable, self._failed = True, False

    def _opened(self) -> HistoryFile:
        try:
            return HistoryFile(self._path, self._bounds)
        except DamagedError as error:
            self._set_aside(error)
            return HistoryFile(self._path, self._bounds)

    def _begin_after(self, last: int) -> None:
        """Numbers rise in the file: what is behind its last one, as when the clock was wrong, cannot go there."""
        while self._pending and self._pending[0].sequence <= last:
            self._pending.popleft()
            self.unwritten += 1
        self._last = max(self._last or 0, last)
        self._shown = max(self._shown, last)
        self._show_on(self._shown, [])

    def _set_aside(self, error: Exception) -> None:
        self._let_go()
        try:
            aside = set_aside(self._path)
        except OSError as reason:
            log.warning("%s is damaged (%s) and cannot be set aside: %s", self._path, error, reason)
        else:
            log.warning("%s is damaged (%s): it is kept as %s, and a new one is begun", self._path, error, aside)

    def _fail(self, error: Exception) -> None:
        if not self._failed:
            log.warning("%s cannot be used, so events are kept in memory for now: %s", self._path, error)
        self._writable, self._failed = False, True
        self.due = time.monotonic() + RETRY_SECONDS
        if self._last is None:
            self._begin_after(self._never_used())

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _never_used(self) -> int:
        return int(self._wall() * 1000)
