"""The audit trail: what happened, numbered, for whoever asks or follows.

Law: nobody waits for who reads it. The newest events are in memory, all that are kept in a file, if there is
one. It is read in pages, off the loop; a reader holds one page. A follower that falls behind what is kept goes
on with the oldest there is.
"""

import asyncio
import logging
import sys
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator, Callable
from itertools import islice, takewhile
from pathlib import Path

from gpuarbiter_server.core.effects import Recorded
from gpuarbiter_server.store.history_file import Bounds, HistoryEvent, Page, Row
from gpuarbiter_server.store.history_writer import HistoryWriter

__all__ = ["MAX_IN_MEMORY", "History", "HistoryEvent"]

log = logging.getLogger(__name__)

MAX_IN_MEMORY = 10_000
# Events that are read at a time, and decoded one by one: the thread that reads them never holds the interpreter
# for long, and the loop goes on between any two that are sent.
_PAGE = 50


class History:
    """The events of the last `max_age` seconds, at most `max_events`, in a file of about `max_bytes`.

    Without a path they are in memory, at most MAX_IN_MEMORY, and numbers begin with 1.
    """

    def __init__(
        self, path: Path | None, *, max_events: int, max_age: float, max_bytes: int, wall: Callable[[], float]
    ) -> None:
        self._wall = wall
        self._max_age = max_age
        self._newest: deque[HistoryEvent] = deque(maxlen=min(max_events, MAX_IN_MEMORY))
        # The last number that anybody may have seen.
        self._shown = 0
        self._more = asyncio.Event()
        self._passed_over = False
        self._writer: HistoryWriter | None = None
        if path is not None and max_events:
            bounds = Bounds(max_events, max_age, max_bytes)
            self._writer = HistoryWriter(path, bounds, wall=wall, publish=self._published)

    @property
    def unwritten(self) -> int:
        """Events that are lost to the file, because it failed for too long."""
        return 0 if self._writer is None else self._writer.unwritten

    def start(self) -> None:
        """Begins to write; call it on the loop. What was observed before is written, too."""
        if self._writer is not None:
            self._writer.start()

    async def close(self) -> None:
        """Writes what is left, within two seconds; after that nothing is written any more."""
        if self._writer is not None:
            await self._writer.close()

    def observe(self, recorded: Recorded) -> None:
        """Keeps an event. On the loop's thread; it costs microseconds whatever the disk does."""
        if self._writer is not None:
            self._writer.take(recorded)
        else:
            event = HistoryEvent(self._shown + 1, self._wall(), recorded)
            self._published(event.sequence, [event])

    def after(self, sequence: int, *, since: float = 0.0, limit: int = 0) -> AsyncGenerator[HistoryEvent]:
        """The kept events with a greater number, from a time on; at most `limit` (0: all). None that come later.

        A negative number counts from the end: so many of the last.
        """
        return self._read(sequence, since, limit, follow=False)

    def follow(self, sequence: int, *, since: float = 0.0, limit: int = 0) -> AsyncGenerator[HistoryEvent]:
        """The same, and then what is to come: without end, or until there were `limit`."""
        return self._read(sequence, since, limit, follow=True)

    def newest(self, sequence: int, most: int) -> list[HistoryEvent]:
        """Those with a greater number that are in memory, the last of them, oldest first; waits for nothing."""
        newer = takewhile(lambda event: event.sequence > sequence, reversed(self._newest))
        return list(islice(newer, most))[::-1]

    async def _read(self, sequence: int, since: float, limit: int, *, follow: bool) -> AsyncGenerator[HistoryEvent]:
        if self._writer is not None:
            # What was observed before is in the answer.
            await self._writer.settled()
        end = self._shown
        if sequence < 0:
            sequence = max(0, end + sequence)
        left = limit or sys.maxsize
        while follow or sequence < end:
            if sequence >= self._shown:
                self._more.clear()
                await self._more.wait()
                continue
            sequence, events = await self._page(sequence, since, min(left, _PAGE))
            for kept in events:
                if kept.sequence > end and not follow:
                    return
                event = kept.decoded() if isinstance(kept, Row) else kept
                if event is None:
                    self._pass_over(kept.sequence)
                    continue
                yield event
                left -= 1
                if not left:
                    return

    async def _page(self, sequence: int, since: float, most: int) -> Page:
        """The next events; from memory where they are all there."""
        newest = self._newest
        while newest and newest[0].time < self._wall() - self._max_age:
            newest.popleft()
        first = newest[0].sequence if newest else self._shown + 1
        if self._writer is not None and sequence + 1 < first:
            page = await self._writer.read(sequence, first, since, most)
            return page or Page(first - 1, [])
        begin = bisect_right(newest, sequence, key=lambda event: event.sequence)
        events = [newest[index] for index in range(begin, min(begin + most, len(newest)))]
        upto = events[-1].sequence if events else self._shown
        return Page(upto, [event for event in events if event.time >= since])

    def _pass_over(self, sequence: int) -> None:
        if not self._passed_over:
            self._passed_over = True
            log.warning("event %d of the history cannot be read; such events are passed over", sequence)

    def _published(self, upto: int, events: list[HistoryEvent]) -> None:
        self._shown = upto
        self._newest.extend(events)
        self._more.set()
