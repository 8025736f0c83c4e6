"""How often a model may be asked: so many times a minute and a day, and not while its server is down.

Law: pure; time is an argument, in seconds that only grow. Nothing is taken where a limit is reached.
"""

from collections import deque

_MINUTE, _DAY = 60.0, 86400.0
# So many failures in a row, and it is left alone: for a minute, then for twice as long each time.
_PATIENCE = 3
_FIRST_PAUSE, _LONGEST_PAUSE = 60.0, 3600.0
_DOUBLINGS = 6


class Budget:
    """The requests of the last minute, and of the day that began with the first of them."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque()
        self._day_began = 0.0
        self._today = 0

    def take(self, now: float, *, per_minute: int, per_day: int) -> str:
        """Counts a request; or says why there may be none."""
        while self._recent and self._recent[0] <= now - _MINUTE:
            self._recent.popleft()
        if self._today and now - self._day_began >= _DAY:
            self._today = 0
        if self._today >= per_day:
            return f"the limit of {per_day} requests a day is reached"
        if len(self._recent) >= per_minute:
            return f"the limit of {per_minute} requests a minute is reached"
        if not self._today:
            self._day_began = now
        self._today += 1
        self._recent.append(now)
        return ""


class Breaker:
    """Leaves a server alone after failures in a row, and when it asks for that."""

    def __init__(self) -> None:
        self._failures = 0
        self._until = 0.0

    def left(self, now: float) -> float:
        """For how long it is still to be left alone."""
        return max(0.0, self._until - now)

    def worked(self) -> None:
        """It answered."""
        self._failures = 0
        self._until = 0.0

    def failed(self, now: float, *, asked_for: float = 0.0) -> None:
        """It did not. asked_for: the time that it said it wants to be left alone for."""
        self._failures += 1
        pause = asked_for
        if self._failures >= _PATIENCE:
            pause = max(pause, _FIRST_PAUSE * 2.0 ** min(self._failures - _PATIENCE, _DOUBLINGS))
        self._until = max(self._until, now + min(pause, _LONGEST_PAUSE))
