"""Spans side by side: what overlaps goes to lanes of its own.

Slices of one row of a trace must nest or lie apart; a slice that overlaps another one is not shown at all
(https://perfetto.dev/docs/faq, https://github.com/google/perfetto/issues/4280).
"""

import heapq
from collections.abc import Sequence


def assign(spans: Sequence[tuple[int, int]]) -> list[int]:
    """The lane of each span (begin, end), counted from 0: as few lanes as can be, the lowest that is free."""
    lanes = [0] * len(spans)
    free: list[int] = []
    used: list[tuple[int, int]] = []
    count = 0
    for place in sorted(range(len(spans)), key=lambda place: spans[place]):
        begin, end = spans[place]
        while used and used[0][0] <= begin:
            heapq.heappush(free, heapq.heappop(used)[1])
        if free:
            lane = heapq.heappop(free)
        else:
            lane, count = count, count + 1
        lanes[place] = lane
        heapq.heappush(used, (end, lane))
    return lanes
