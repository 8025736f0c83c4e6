"""Histories to fill, and readers of them."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from gpuarbiter_server.core.effects import Recorded
from gpuarbiter_server.core.model import EventType
from gpuarbiter_server.store.history import History, HistoryEvent

MANY = 1_000_000
LONG = 365 * 86400.0
LARGE = 1024**3


class Wall:
    """Unix time that goes on when it is told to."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Now."""
        return self.now


def event(number: int) -> Recorded:
    """Something that can be told from all else."""
    return Recorded(EventType.RENEWED, detail=f"event {number}")


def history(
    path: Path | None,
    *,
    max_events: int = MANY,
    max_age: float = LONG,
    max_bytes: int = LARGE,
    wall: Wall | None = None,
) -> History:
    """One that keeps nearly everything, unless it is told not to."""
    return History(path, max_events=max_events, max_age=max_age, max_bytes=max_bytes, wall=wall or Wall())


@asynccontextmanager
async def opened(path: Path | None, **options: object) -> AsyncIterator[History]:
    """One that is written, from its start to its end."""
    kept = history(path, **options)  # type: ignore[arg-type]
    kept.start()
    try:
        yield kept
    finally:
        await kept.close()


def observe(kept: History, numbers: Iterable[int]) -> None:
    """Lets these events happen."""
    for number in numbers:
        kept.observe(event(number))


async def events(kept: History, sequence: int = 0, *, since: float = 0.0, limit: int = 0) -> list[HistoryEvent]:
    """What it answers."""
    return [one async for one in kept.after(sequence, since=since, limit=limit)]


async def numbers(kept: History, sequence: int = 0, *, since: float = 0.0, limit: int = 0) -> list[int]:
    """The numbers of what it answers."""
    return [one.sequence for one in await events(kept, sequence, since=since, limit=limit)]


class Follower:
    """Reads along in a task of its own."""

    def __init__(self, kept: History, sequence: int = 0, *, since: float = 0.0, limit: int = 0) -> None:
        self.seen: list[HistoryEvent] = []
        self.task = asyncio.create_task(self._read(kept, sequence, since, limit))

    @property
    def numbers(self) -> list[int]:
        """Of what it has seen."""
        return [one.sequence for one in self.seen]

    async def _read(self, kept: History, sequence: int, since: float, limit: int) -> None:
        async for one in kept.follow(sequence, since=since, limit=limit):
            self.seen.append(one)

    async def stop(self) -> None:
        """Ends it."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
