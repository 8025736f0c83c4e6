"""When a sampling thread takes its next turn.

Law: what is asked for while a turn is under way needs another turn after it, for that one began too
early to show what the asker wants to see.
"""

import threading
import time

# However often it is asked for, a turn leaves the machine this much air.
MIN_GAP_SECONDS = 0.01


class Pace:
    """The pace of one thread, set from any other. Times are seconds of real, monotonic time."""

    def __init__(self, interval: float | None) -> None:
        """`interval`: from the start of one turn to the start of the next; None: only when asked."""
        self._changed = threading.Condition()
        self._interval = interval
        self._began = float("-inf")
        self._asked = True
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether the thread is to end; what it finds out after that is of no use to anybody."""
        return self._stopped

    def set_interval(self, interval: float | None) -> None:
        """Changes the interval, for the wait that is under way too."""
        with self._changed:
            if self._interval != interval:
                self._interval = interval
                self._changed.notify_all()

    def ask(self) -> None:
        """Asks for a turn that begins after this call."""
        with self._changed:
            self._asked = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Ends the thread after the turn that is under way."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def wait(self) -> bool:
        """Waits, in the sampling thread, until the next turn is due; False when there is none any more."""
        earliest = time.monotonic() + MIN_GAP_SECONDS if self._began > 0 else self._began
        with self._changed:
            while not self._stopped:
                left = self._left(earliest)
                if left is not None and left <= 0:
                    break
                self._changed.wait(left)
            self._asked = False
            self._began = time.monotonic()
            return not self._stopped

    def _left(self, earliest: float) -> float | None:
        if self._asked:
            return earliest - time.monotonic()
        if self._interval is None:
            return None
        return max(earliest, self._began + self._interval) - time.monotonic()
