"""What each GPU did lately: a point every two seconds for a quarter of an hour, whether somebody watches or not.

Law: memory is bounded by GPUs × points, and a point costs one look at each GPU.
"""

import json
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from gpuarbiter_server.core.model import GpuHealth
from gpuarbiter_server.core.views import GpuView

INTERVAL = 2.0
_POINTS = 450
_MIB = 2**20


class _Point(NamedTuple):
    number: int
    at: float
    text: str


class Readings:
    """The points, oldest first; each has the number under which it was noted."""

    def __init__(self) -> None:
        self._points: deque[_Point] = deque(maxlen=_POINTS)

    def note(self, number: int, at: float, gpus: Iterable[GpuView]) -> None:
        """Keeps a point; `number` is at least that of the point before. at: seconds since 1970."""
        while self._points and self._points[-1].at >= at:
            # Somebody has put the clock back.
            self._points.pop()
        row = [round(at, 1), *(_figures(gpu) for gpu in gpus)]
        self._points.append(_Point(number, at, json.dumps(row, separators=(",", ":"))))

    def after(self, number: int) -> Iterator[str]:
        """The points with a greater number, oldest first, as JSON: the moment, and for each GPU its figures."""
        newer = 0
        for point in reversed(self._points):
            if point.number <= number:
                break
            newer += 1
        return (self._points[place].text for place in range(len(self._points) - newer, len(self._points)))


def _figures(gpu: GpuView) -> list[int | None]:
    """Utilization in percent; used, committed and unleased in MiB."""
    reading = gpu.reading if gpu.health is GpuHealth.OK else None
    busy = reading.utilization_ratio if reading else None
    used = reading.memory_used_bytes if reading else None
    return [
        None if busy is None else round(busy * 100),
        None if used is None else used // _MIB,
        gpu.committed_bytes // _MIB,
        gpu.unleased_bytes // _MIB,
    ]
