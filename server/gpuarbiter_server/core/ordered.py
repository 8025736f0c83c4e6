"""A sorted list that stays fast at 100,000 entries: buckets of entries, found by bisection.

Adding and removing bisects over buckets and then within one (O(log n)) and moves at most one
bucket's pointers; the rank adds up bucket lengths. Entries are tuples that end in their payload and
differ before it, so that payloads are never compared.
"""

from bisect import bisect_left
from collections.abc import Iterator
from typing import Generic, TypeVar

E = TypeVar("E", bound=tuple[object, ...])

_BUCKET = 512


class OrderedList(Generic[E]):
    """Entries in ascending order."""

    __slots__ = ("_buckets", "_last", "_size")

    def __init__(self) -> None:
        self._buckets: list[list[E]] = []
        # The greatest entry of each bucket.
        self._last: list[E] = []
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[E]:
        for bucket in self._buckets:
            yield from bucket

    def first(self) -> E:
        """The smallest entry; IndexError when there is none."""
        return self._buckets[0][0]

    def add(self, entry: E) -> None:
        """Puts an entry in its place."""
        self._size += 1
        if not self._buckets:
            self._buckets.append([entry])
            self._last.append(entry)
            return
        at = min(bisect_left(self._last, entry), len(self._last) - 1)
        bucket = self._buckets[at]
        bucket.insert(bisect_left(bucket, entry), entry)
        self._last[at] = bucket[-1]
        if len(bucket) > 2 * _BUCKET:
            self._buckets[at : at + 1] = [bucket[:_BUCKET], bucket[_BUCKET:]]
            self._last[at : at + 1] = [bucket[_BUCKET - 1], bucket[-1]]

    def remove(self, entry: E) -> None:
        """Takes an entry out; ValueError when it is not there."""
        at, within = self._find(entry)
        bucket = self._buckets[at]
        del bucket[within]
        self._size -= 1
        if bucket:
            self._last[at] = bucket[-1]
        else:
            del self._buckets[at], self._last[at]

    def rank(self, entry: E) -> int:
        """How many entries are smaller; the entry itself need not be there."""
        at = bisect_left(self._last, entry)
        if at == len(self._last):
            return self._size
        return sum(map(len, self._buckets[:at])) + bisect_left(self._buckets[at], entry)

    def _find(self, entry: E) -> tuple[int, int]:
        at = bisect_left(self._last, entry)
        if at < len(self._last):
            bucket = self._buckets[at]
            within = bisect_left(bucket, entry)
            if bucket[within] == entry:
                return at, within
        raise ValueError("the entry is not in the list")
