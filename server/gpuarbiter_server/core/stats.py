"""What the last hundred leases of a GPU were like, for people and for guesses."""

from collections import deque

from gpuarbiter_server.core.views import StatsView

_KEPT = 100


def percentile(values: list[float], share: float) -> float | None:
    """The smallest value that at least `share` of the values do not exceed (nearest rank)."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


class GpuStats:
    """Waits and holds in seconds, and counts since the start."""

    __slots__ = ("_holds", "_waits", "declined", "granted", "timed_out", "typical_hold", "watchdog")

    def __init__(self) -> None:
        self._waits: deque[float] = deque(maxlen=_KEPT)
        self._holds: deque[float] = deque(maxlen=_KEPT)
        # The median hold; None before the first lease ended.
        self.typical_hold: float | None = None
        self.granted = 0
        self.declined = 0
        self.timed_out = 0
        self.watchdog = 0

    def waited(self, seconds: float) -> None:
        """A lease was granted after this wait."""
        self._waits.append(seconds)
        self.granted += 1

    def held(self, seconds: float) -> None:
        """A lease ended after this hold."""
        self._holds.append(seconds)
        self.typical_hold = percentile(list(self._holds), 0.5)

    def view(self) -> StatsView:
        """A frozen copy."""
        waits, holds = list(self._waits), list(self._holds)
        return StatsView(
            queue_wait_p50=percentile(waits, 0.5),
            queue_wait_p95=percentile(waits, 0.95),
            hold_p50=percentile(holds, 0.5),
            hold_p95=percentile(holds, 0.95),
            granted=self.granted,
            declined=self.declined,
            timed_out=self.timed_out,
            watchdog=self.watchdog,
        )
