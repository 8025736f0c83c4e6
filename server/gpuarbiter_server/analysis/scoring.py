"""The score of a GPU: how much of it was used over the window, 0 to 100.

Law: pure. A part that is not known scales the others up, and is named; it never counts as 0.
"""

from gpuarbiter_server.analysis.model import GpuWindow, Part, Score, Status, Thresholds, Weights


def parts(gpu: GpuWindow) -> dict[Part, float | None]:
    """The means over the window, each of what there is of it; None: not known."""
    return {
        Part.UTILIZATION: gpu.mean("utilization"),
        Part.MEMORY_BANDWIDTH: gpu.mean("memory_bandwidth"),
        Part.MEMORY: _share(gpu.mean("memory_used_bytes"), gpu.memory_total_bytes),
        Part.POWER: _share(gpu.mean("power_watts"), gpu.power_limit_watts),
    }


def score(gpu: GpuWindow, weights: Weights) -> Score:
    """The weighted mean of what is known; parts without weight are neither counted nor missed."""
    counted = {part: getattr(weights, part.value) for part in Part if getattr(weights, part.value)}
    known = {part: value for part, value in parts(gpu).items() if part in counted and value is not None}
    missing = tuple(part for part in counted if part not in known)
    total = sum(counted[part] for part in known)
    if not total:
        return Score(None, missing)
    return Score(100 * sum(counted[part] * min(1.0, max(0.0, value)) for part, value in known.items()) / total, missing)


def status(value: float, thresholds: Thresholds) -> Status:
    """Where a score lies."""
    if value < thresholds.idle:
        return Status.IDLE
    if value < thresholds.low:
        return Status.LOW
    return Status.NORMAL if value < thresholds.high else Status.HIGH


def _share(used: float | None, whole: float | None) -> float | None:
    return used / whole if used is not None and whole else None
