"""The audit trail: the newest events, numbered without gaps, for whoever asks or follows.

In memory and bounded: the oldest go first. A follower that falls behind what is kept goes on with the
oldest there is; nobody waits for it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from gpuarbiter_server.core.effects import Recorded


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """One event; time in Unix seconds."""

    sequence: int
    time: float
    recorded: Recorded


class History:
    """The last events, at most `limit`."""

    def __init__(self, limit: int, *, wall: Callable[[], float]) -> None:
        self._events: deque[HistoryEvent] = deque(maxlen=limit)
        self._wall = wall
        self._sequence = 0
        self._more = asyncio.Event()

    def observe(self, recorded: Recorded) -> None:
        """Keeps an event."""
        self._sequence += 1
        self._events.append(HistoryEvent(self._sequence, self._wall(), recorded))
        self._more.set()

    def after(self, sequence: int, *, since: float = 0.0) -> Iterator[HistoryEvent]:
        """The kept events with a greater sequence, from a time on."""
        # Clients name any number: one beyond the end skips what there is, and no more.
        known = self._sequence - len(self._events)
        skip = min(len(self._events), max(0, sequence - known))
        return (event for event in islice(self._events, skip, None) if event.time >= since)

    async def follow(self, sequence: int, *, since: float = 0.0) -> AsyncIterator[HistoryEvent]:
        """The same, and then what is to come, without end."""
        while True:
            for event in list(self.after(sequence)):
                sequence = event.sequence
                if event.time >= since:
                    yield event
            if not self._events or self._events[-1].sequence <= sequence:
                self._more.clear()
                await self._more.wait()
