"""How figures are summed up and written down, the same way in every row."""

import math
import statistics
from collections.abc import Sequence

Row = tuple[str, ...]


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that this share of the values do not exceed; not a number where there are none."""
    return math.nan if not values else sorted(values)[min(len(values) - 1, int(share * len(values)))]


def spread(values: Sequence[float], digits: int = 0) -> str:
    """The median, and from where to where they go."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def both(seconds: Sequence[float]) -> str:
    """Median and 99th percentile, in milliseconds."""
    return f"p50 {quantile(seconds, 0.5) * 1e3:.2f}, p99 {quantile(seconds, 0.99) * 1e3:.2f} ms"


def verdict(target: str, *, passed: bool) -> str:
    """What stands in a row that has a target."""
    return f"target {target}: {'PASS' if passed else 'missed'}"
