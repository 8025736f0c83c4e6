"""The states of the arbiter as they come, whether it is there or not.

Law: an arbiter that is away is asked again until it is back; what it refuses ends the view. Nobody who draws
waits for it.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from gpuarbiter import _clock
from gpuarbiter._errors import ArbiterError, ArbiterUnavailable
from gpuarbiter.v1 import snapshot_pb2

Snapshot = snapshot_pb2.ArbiterSnapshot
# Rates are those of so many seconds.
WINDOW_SECONDS = 10.0
_AGAIN_SECONDS = 0.5


class View(NamedTuple):
    """What is to be shown. now: the arbiter's time."""

    snapshot: Snapshot
    previous: Snapshot
    now: datetime


class States:
    """Follows an arbiter. watch: starts a stream of states; on_news: called when there is something new."""

    def __init__(self, watch: Callable[[], Iterator[Snapshot]], on_news: Callable[[], None]) -> None:
        self._watch = watch
        self._on_news = on_news
        self._lock = threading.Lock()
        # With the monotonic time at which each came; the oldest is the one that rates are told from.
        self._kept: deque[tuple[float, Snapshot]] = deque()
        self._over = threading.Event()
        self._away: tuple[float, ArbiterUnavailable] | None = None
        self._refused: ArbiterError | None = None

    def follow(self) -> None:
        """Until `close`, or until the arbiter refuses; for a thread of its own."""
        while not self._over.is_set():
            try:
                for snapshot in self._watch():
                    self._take(snapshot)
                failure = ArbiterUnavailable("the arbiter ended the stream")
            except ArbiterUnavailable as error:
                failure = error
            except ArbiterError as error:
                self._refused = error
                self._on_news()
                return
            except RuntimeError:  # closed in the same instant
                return
            self._away = self._away or (_clock.now(), failure)
            self._on_news()
            self._over.wait(_AGAIN_SECONDS)

    def _take(self, snapshot: Snapshot) -> None:
        with self._lock:
            self._kept.append((_clock.now(), snapshot))
            self._forget()
            self._away = None
        self._on_news()

    def _forget(self) -> None:
        """What is older than the window; the newest stays, and one at the window's far edge."""
        edge = _clock.now() - WINDOW_SECONDS
        while len(self._kept) > 1 and self._kept[1][0] <= edge:
            self._kept.popleft()

    def view(self) -> View | None:
        """The newest state; None before the first.

        Raises:
            ArbiterError: the arbiter refuses to show it.
        """
        if self._refused is not None:
            raise self._refused
        with self._lock:
            if not self._kept:
                return None
            self._forget()
            came, snapshot = self._kept[-1]
            passed = 0.0 if self._away is not None else _clock.now() - came
            now = snapshot.snapshot_time.ToDatetime(tzinfo=UTC) + timedelta(seconds=passed)
            return View(snapshot, self._kept[0][1], now)

    def away(self) -> tuple[timedelta, str] | None:
        """For how long the arbiter has been away, and why; None while it is there."""
        away = self._away
        return None if away is None else (timedelta(seconds=_clock.now() - away[0]), str(away[1]))

    def close(self) -> None:
        """Follows no more."""
        self._over.set()
