"""What those who watch are sent: all there is at first, then what has changed since.

Law: rendered once for all, at most twice a second, and only while somebody watches; who reads slowly gets the newest,
and no backlog. The number of those who watch has a bound. Between two parts everybody else has their turn.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from gpuarbiter_server.core.census import Census
from gpuarbiter_server.store.history import History
from gpuarbiter_server.web.console.readings import INTERVAL as READINGS_INTERVAL
from gpuarbiter_server.web.console.readings import Readings
from gpuarbiter_server.web.console.state import State, WallTime
from gpuarbiter_server.web.console.trail import SECONDS, Trail

log = logging.getLogger(__name__)

MOST_WATCHERS = 32
# At most so often there is something new, in seconds; and at least so often something is said.
_INTERVAL = 0.5
HEARTBEAT = 5.0
# Of the history: so many events of before the first look, and between two looks.
_MOST_BEFORE = 5000
_MOST_BETWEEN = 500
_EVENTS_AT_ONCE = 50
# A disk that hangs keeps nobody from seeing what is now.
_PATIENCE = 3.0


class CrowdedError(Exception):
    """As many watch as may."""


class Feed:
    """Renders for all who watch.

    changed: returns when the state is no longer that of a revision. revision: of the state now.
    """

    def __init__(
        self,
        state: State,
        history: History,
        census: Callable[[], Census],
        *,
        revision: Callable[[], int],
        changed: Callable[[int], Awaitable[None]],
        wall: Callable[[], float],
        moment: WallTime,
    ) -> None:
        self._state = state
        self._history = history
        self._census = census
        self._revision = revision
        self._changed = changed
        self._wall = wall
        self._moment = moment
        self._readings = Readings()
        self._trail = Trail()
        # Rises with each look.
        self._number = 1
        self._parts: dict[str, tuple[int, str]] = {}
        # The news since a number, for all who have seen what was before.
        self._news: dict[int, str] = {}
        self._fresh = asyncio.Event()
        self._watchers = 0
        self._rendering: asyncio.Task[None] | None = None
        self._closed = False
        self._failing = False

    async def take_readings(self) -> None:
        """Notes what the GPUs do, without end."""
        while True:
            self._readings.note(self._number + 1, self._wall(), self._census().gpus())
            await asyncio.sleep(READINGS_INTERVAL)

    def close(self) -> None:
        """Everything that is watched ends."""
        self._closed = True
        self._wake()

    @property
    def crowded(self) -> bool:
        """Whether as many watch as may."""
        return self._watchers >= MOST_WATCHERS

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place among those who watch; CrowdedError where there is none left."""
        if self.crowded:
            raise CrowdedError
        self._watchers += 1
        if self._rendering is None:
            self._rendering = asyncio.ensure_future(self._render_on())
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._rendering.cancel()
                self._rendering = None
                # Whoever comes next is not shown what was then.
                self._parts.clear()
                self._news.clear()

    async def news(self) -> AsyncIterator[bytes]:
        """The events of a stream, as they come; a heartbeat while nothing does. Ends with `close`."""
        seen = 0
        while not self._closed:
            if seen < self._number and self._parts:
                # All there is now, whatever was missed.
                news, seen = self._since(seen), self._number
                yield f'event: news\ndata: {{"now":{self._wall():.2f},{news}}}\n\n'.encode()
            else:
                yield b"event: beat\ndata: %.2f\n\n" % self._wall()
            fresh = self._fresh
            if seen == self._number or not self._parts:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT):
                        await fresh.wait()

    def _since(self, seen: int) -> str:
        if seen not in self._news:
            parts = [f'"{name}":{text}' for name, (number, text) in self._parts.items() if number > seen]
            parts += [
                f'"{name}":[{",".join(rows)}]'
                for name, rows in (
                    ("readings", self._readings.after(seen)),
                    ("spans", self._trail.spans_after(seen)),
                    ("events", self._trail.events_after(seen)),
                )
            ]
            self._news[seen] = ",".join([f'"first":{"false" if seen else "true"}', *parts])
        return self._news[seen]

    async def _render_on(self) -> None:
        """Looks again whenever something has changed, without end."""
        first = True
        while True:
            began, revision = asyncio.get_running_loop().time(), self._revision()
            try:
                await self._look(first=first)
                first = self._failing = False
            except Exception:
                # Told once, and not twice a second.
                if not self._failing:
                    log.exception("the console cannot be rendered; it is tried again")
                self._failing = True
            await asyncio.sleep(began + _INTERVAL - asyncio.get_running_loop().time())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT):
                    await self._changed(revision)

    async def _look(self, *, first: bool) -> None:
        number = self._number + 1
        self._moment.adjust()
        changed = {}
        for name, pieces in self._state.parts().items():
            made = []
            for piece in pieces:
                made.append(piece)
                await asyncio.sleep(0)
            text = "".join(made)
            if self._parts.get(name, (0, ""))[1] != text:
                changed[name] = (number, text)
        if first:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await self._read_back(number)
        for event in self._history.newest(self._trail.sequence, _MOST_BETWEEN):
            self._trail.take(number, event)
        self._trail.compare(number, self._wall(), self._state.leases, self._census().is_live, self._moment)
        self._parts.update(changed)
        self._number = number
        self._news.clear()
        self._wake()

    async def _read_back(self, number: int) -> None:
        """What was before somebody watched."""
        async with contextlib.aclosing(self._history.after(-_MOST_BEFORE, since=self._wall() - SECONDS)) as events:
            read = 0
            async for event in events:
                self._trail.take(number, event)
                read += 1
                if not read % _EVENTS_AT_ONCE:
                    await asyncio.sleep(0)

    def _wake(self) -> None:
        self._fresh.set()
        self._fresh = asyncio.Event()
