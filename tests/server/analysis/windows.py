"""Windows of GPUs that do this or that, for tests of the analysis."""

from collections.abc import Iterable
from typing import Any

from gpuarbiter_server.analysis.model import GpuWindow, Holder, Sample

GIB = 1024**3
TOTAL, LIMIT = 80 * GIB, 400.0
SOMEBODY = Holder("team-a", "trainer-0", "lease-1", held=3600.0)


def working(level: float, *, memory: float = 0.5, peak: float | None = None) -> Sample:
    """A step of a GPU that works so much, and draws power for it."""
    return Sample(level, level * 0.6, memory * TOTAL, 60 + 340 * level, 1e9, peak)


def window(levels: Iterable[float], *, memory: float = 0.5, steps: int | None = None, **more: Any) -> GpuWindow:
    """A GPU of 80 GiB and 400 W, one step of 30 s for each level."""
    return of(*(working(level, memory=memory) for level in levels), steps=steps, **more)


def of(*samples: Sample, steps: int | None = None, **more: Any) -> GpuWindow:
    """A GPU with these samples."""
    known = {"memory_total_bytes": TOTAL, "power_limit_watts": LIMIT, "holders": (SOMEBODY,)} | more
    return GpuWindow("gpu:0", "node-1", "Test GPU", samples, steps=steps or len(samples) or 1, step=30.0, **known)
