"""What the results of a run come to: as a whole, by status and by namespace. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from gpuarbiter_server.analysis.model import Result, Status, Thresholds


@dataclass(frozen=True, slots=True)
class NamespaceStatistics:
    """The GPUs that holders of one namespace have."""

    count: int
    avg_score: float
    low_util_count: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """All GPUs of a run; scores are None where there are no GPUs."""

    total_gpus: int
    avg_score: float | None
    min_score: float | None
    max_score: float | None
    low_utilization_count: int
    idle_count: int
    by_status: dict[str, int]
    by_namespace: dict[str, NamespaceStatistics]


def low(results: Iterable[Result], thresholds: Thresholds) -> list[Result]:
    """Those below the low threshold, the lowest first."""
    return sorted((each for each in results if each.score < thresholds.low), key=lambda each: each.score)


def statistics(results: Sequence[Result], thresholds: Thresholds) -> Statistics:
    """The figures. GPUs whose namespace is not known are under the empty name."""
    scores = [each.score for each in results]
    statuses = Counter(each.status for each in results)
    by_namespace: dict[str, list[Result]] = {}
    for each in results:
        by_namespace.setdefault(each.holder.namespace, []).append(each)
    return Statistics(
        total_gpus=len(results),
        avg_score=fmean(scores) if scores else None,
        min_score=min(scores, default=None),
        max_score=max(scores, default=None),
        low_utilization_count=len(low(results, thresholds)),
        idle_count=statuses[Status.IDLE],
        by_status={status.value: statuses[status] for status in Status},
        by_namespace={
            name: NamespaceStatistics(len(group), fmean(each.score for each in group), len(low(group, thresholds)))
            for name, group in sorted(by_namespace.items())
        },
    )
