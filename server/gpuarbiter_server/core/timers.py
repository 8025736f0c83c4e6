"""Deadlines: what is to be done when, without a clock.

A timer is named by its kind and the very object it belongs to, so that a late timer can never hit the
next holder; the arbiter has the table of what each kind does. Setting it again moves it; what was moved
or cancelled stays in the heap until it surfaces or until the heap is swept, which keeps it within twice
the living timers.
"""

import heapq
from collections.abc import Iterator
from enum import Enum
from typing import Any


class Clock(Enum):
    """What a timer is for."""

    # Of a ticket: max_wait; how long it outlives its stream; the regular notice to its client.
    WAIT = 1
    ABSENCE = 2
    NOTICE = 3
    # Of a lease: max_hold; ttl or disconnect grace; the grace of a yield request.
    HOLD = 4
    PATIENCE = 5
    GRACE = 6
    # Of a GPU: its cooldown; when its readings are overdue; when memory that is not back is given up.
    COOLDOWN = 7
    STALE = 8
    RECOVERY = 9
    # Of the arbiter: when waiting clients are told what has changed.
    PUBLISH = 10


Timer = tuple[Clock, Any]


class Timers:
    """Pending timers, earliest first."""

    __slots__ = ("_count", "_heap", "_when")

    def __init__(self) -> None:
        self._when: dict[Timer, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, Timer]] = []
        # Numbers the settings: equal times fire in the order in which they were set.
        self._count = 0

    def __len__(self) -> int:
        return len(self._when)

    def set(self, timer: Timer, when: float) -> None:
        """Sets or moves a timer to a time."""
        self._count += 1
        self._when[timer] = (when, self._count)
        heapq.heappush(self._heap, (when, self._count, timer))
        if len(self._heap) > 2 * len(self._when) + 64:
            self._heap = [(when, count, timer) for timer, (when, count) in self._when.items()]
            heapq.heapify(self._heap)

    def cancel(self, timer: Timer) -> None:
        """Takes a timer back; fine when it is not set."""
        self._when.pop(timer, None)

    def when(self, timer: Timer) -> float | None:
        """The time of a timer; None when it is not set."""
        found = self._when.get(timer)
        return found[0] if found else None

    def next(self) -> float | None:
        """The earliest time; None when nothing is pending."""
        while self._heap:
            when, count, timer = self._heap[0]
            if self._when.get(timer) == (when, count):
                return when
            heapq.heappop(self._heap)
        return None

    def due(self, now: float) -> Iterator[Timer]:
        """Takes out the timers whose time has come, one by one: handling one may cancel the next."""
        while True:
            when = self.next()
            if when is None or when > now:
                return
            timer = heapq.heappop(self._heap)[2]
            del self._when[timer]
            yield timer
