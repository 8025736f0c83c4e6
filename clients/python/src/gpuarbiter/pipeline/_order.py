"""Whose result of a session is next.

Law: pure, and time is an argument. Every index that is expected comes out exactly once. What comes out in its place
comes in rising order; what others have waited for longer than they may comes out when it comes, marked late.
"""

import bisect
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

# How many stretches of passed-over indices are remembered, for those that come after all.
MAX_GAPS = 256


@dataclass(frozen=True, slots=True)
class Turn(Generic[T]):
    """An item whose turn has come."""

    item: T
    late: bool = False


class SessionOrder(Generic[T]):
    """The order of one session.

    Args:
        first_index: the lowest index there is.
        hold_back: for how many seconds at most what is there waits for what is not; None: as long as it takes.
    """

    def __init__(self, first_index: int, hold_back: float | None) -> None:
        self._hold_back = hold_back
        # Everything below has come out, was passed over, or is expected still and will be late.
        self._next = first_index
        self._highest = first_index - 1
        self._expected: set[int] = set()
        self._ready: dict[int, tuple[float, T]] = {}
        self._gaps: list[tuple[int, int]] = []
        self._ended = False

    @property
    def following(self) -> int:
        """The index after the highest that was expected."""
        return self._highest + 1

    @property
    def held_back(self) -> int:
        """How many wait for their turn."""
        return len(self._ready)

    @property
    def over(self) -> bool:
        """No more are expected, and all came out."""
        return self._ended and not self._expected and not self._ready

    def expect(self, index: int) -> None:
        """One of this index is to come.

        Raises:
            ValueError: it was expected before.
        """
        if index in self._expected or index in self._ready or (index < self._next and not self._fill_gap(index)):
            raise ValueError(f"utterance_index {index} is there already, or was passed over too long ago")
        self._expected.add(index)
        self._highest = max(self._highest, index)

    def arrived(self, index: int, item: T, now: float) -> list[Turn[T]]:
        """It is there; returns what comes out now."""
        self._expected.remove(index)
        if index < self._next:
            return [Turn(item, late=True)]
        self._ready[index] = (now, item)
        return self._in_place()

    def deadline(self) -> float | None:
        """When to call `due` at the latest."""
        if self._hold_back is None or not self._ready:
            return None
        return min(since for since, _ in self._ready.values()) + self._hold_back

    def due(self, now: float) -> list[Turn[T]]:
        """What was held back for long enough, and whatever has its turn with it."""
        if self._hold_back is None:
            return []
        overdue = [index for index, (since, _) in self._ready.items() if since + self._hold_back <= now]
        if not overdue:
            return []
        turns = []
        for index in sorted(each for each in self._ready if each <= max(overdue)):
            self._pass_over(index)
            turns += self._in_place()
        return turns

    def end(self) -> list[Turn[T]]:
        """No more are expected: what never came holds nobody back."""
        self._ended = True
        return self._in_place()

    def _in_place(self) -> list[Turn[T]]:
        turns = []
        while self._ready:
            if self._ended:
                self._pass_over(min(*self._ready, *self._expected_on, self._highest))
            if self._next not in self._ready:
                break
            turns.append(Turn(self._ready.pop(self._next)[1]))
            self._next += 1
        return turns

    @property
    def _expected_on(self) -> list[int]:
        return [index for index in self._expected if index >= self._next]

    def _pass_over(self, index: int) -> None:
        """Goes on at this index; what is expected below it will be late, what is not is remembered as a gap."""
        for known in sorted([*(each for each in self._expected_on if each < index), max(index, self._next)]):
            if known > self._next:
                self._gaps.append((self._next, known - 1))
            self._next = known + (known < index)
        del self._gaps[:-MAX_GAPS]

    def _fill_gap(self, index: int) -> bool:
        """Whether it was passed over, which it is no longer."""
        place = bisect.bisect_right(self._gaps, index, key=lambda gap: gap[0]) - 1
        if place < 0 or self._gaps[place][1] < index:
            return False
        first, last = self._gaps[place]
        left = [(first, index - 1), (index + 1, last)]
        self._gaps[place : place + 1] = [gap for gap in left if gap[0] <= gap[1]]
        return True
