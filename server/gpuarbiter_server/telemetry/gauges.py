"""What is so at the moment of a scrape. A gauge of something that is not read any more is absent, not stale."""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping

from gpuarbiter_server.core.census import Leases, Waiters
from gpuarbiter_server.core.model import GpuHealth, GpuSpec
from gpuarbiter_server.core.views import GpuView, LeaseView
from gpuarbiter_server.telemetry import catalogue as cat
from gpuarbiter_server.telemetry.series import Facts, Family, Values
from gpuarbiter_server.telemetry.sources import Analysed, Known, Sources, TaskType

# Waiting requests that are told apart. Those behind them count at their GPUs as task=other, reason=queue_order.
_TOLD_APART = 1000
# Live leases that are shown by their id, where that is asked for.
_MOST_LEASES = 1000

Figures = Mapping[tuple[str, ...], float | None]


def _limit(gpu: GpuView) -> int:
    return gpu.spec.total_bytes - gpu.headroom_bytes


def _overcommitted(gpu: GpuView) -> float:
    return float(gpu.committed_bytes + gpu.unleased_bytes > _limit(gpu))


_LEDGER: dict[cat.Metric, Callable[[GpuView], float | None]] = {
    cat.QUEUE_LIMIT: lambda gpu: gpu.queue_limit,
    cat.COMMITTED: lambda gpu: gpu.committed_bytes,
    cat.UNLEASED: lambda gpu: gpu.unleased_bytes if gpu.health is GpuHealth.OK else None,
    cat.ADMISSIBLE: lambda gpu: None if gpu.health is GpuHealth.LOST else gpu.admissible_bytes,
    cat.LIMIT: _limit,
    cat.OVERCOMMITTED: lambda gpu: _overcommitted(gpu) if gpu.health is GpuHealth.OK else None,
    cat.GPU_UP: lambda gpu: float(gpu.health is not GpuHealth.LOST),
    cat.GPU_TOTAL: lambda gpu: gpu.spec.total_bytes,
}
_READINGS = {
    cat.GPU_USED: "memory_used_bytes",
    cat.GPU_FREE: "memory_free_bytes",
    cat.GPU_UTILIZATION: "utilization_ratio",
    cat.GPU_BANDWIDTH: "memory_bandwidth_ratio",
    cat.GPU_POWER: "power_watts",
    cat.GPU_POWER_LIMIT: "power_limit_watts",
    cat.GPU_TEMPERATURE: "temperature_celsius",
    cat.GPU_CLOCK: "sm_clock_hertz",
}
_SHOWN_AT_0 = (cat.LEASES, cat.WAITERS)
_POLICIES: dict[cat.Metric, Callable[[TaskType], float]] = {
    cat.HOLD_LIMIT: lambda task: task.max_hold,
    cat.WAIT_OBJECTIVE: lambda task: task.wait_objective,
    cat.HOLD_OBJECTIVE: lambda task: task.hold_objective,
}


class Gauges:
    """Every gauge and info, and what others count. Known label sets are shown at 0, and their text is kept."""

    def __init__(self, known: Known, sources: Sources) -> None:
        self._sources = sources
        families = (cat.OLDEST_WAITER, cat.OLDEST_LEASE, cat.LEASE_MEMORY_USED)
        gpus = (*_LEDGER, *_READINGS, cat.GPU_PROCESSES, cat.NVML_UP, *_POLICIES)
        self._values = {metric: Values(metric, start=None) for metric in (*families, *gpus)}
        self._values |= {metric: Values(metric) for metric in _SHOWN_AT_0}
        self.configure(known)

    def configure(self, known: Known) -> None:
        """What the labels can be from now on; a label set that is not known any more is not shown unless it is met."""
        self._known = known
        # By metric, the label sets that had a figure at the last scrape.
        self._shown: dict[cat.Metric, frozenset[tuple[str, ...]]] = {}
        for values in self._values.values():
            values.clear()
        for metric in _SHOWN_AT_0:
            self._values[metric].expect(*(known.values(label) for label in metric.labels))

    def families(self) -> Iterator[Family]:
        """All of them, each of the moment that it is asked for."""
        census = self._sources.census()
        yield Facts(cat.BUILD_INFO, [((self._sources.version,), 1)])
        yield self._set(cat.NVML_UP, {(): float(census.nvml_up)})
        for metric, figure in _POLICIES.items():
            yield self._set(metric, self._known.by_task(figure))
        since_1970 = self._sources.wall() - census.now
        yield from self._waiters(census.waiters(self._known.task, _TOLD_APART), since_1970)
        yield from self._leases(census.leases(self._known.task), since_1970)
        shown = census.lease_views(_MOST_LEASES) if self._known.lease_info else ()
        facts = ((self._facts(lease, grant.spec), 1) for lease in shown for grant in lease.gpus)
        yield Facts(cat.LEASE_INFO, facts)
        yield Facts(
            cat.LEASE_USED,
            (
                ((grant.spec.key, lease.lease_id), grant.observed_bytes)
                for lease in shown
                for grant in lease.gpus
                if grant.observed_bytes is not None
            ),
        )
        yield from self._gpus(census.gpus())
        yield from _analysed(tuple(self._sources.analysed()))
        yield Facts(cat.SPANS_DROPPED, [((), float(self._sources.spans_dropped()))])
        errors = dict(self._sources.nvml_errors)
        yield Facts(cat.NVML_ERRORS, ((labels, float(count)) for labels, count in errors.items()))

    def _set(self, metric: cat.Metric, figures: Figures, *, absent: float | None = None) -> Values:
        """A family as these figures have it; what is not among them any more is `absent`."""
        values = self._values[metric]
        for labels in self._shown.get(metric, frozenset()) - figures.keys():
            values[labels].set(absent)
        for labels, figure in figures.items():
            values[labels].set(figure)
        self._shown[metric] = frozenset(figures)
        return values

    def _waiters(self, groups: Iterable[Waiters], since_1970: float) -> Iterator[Family]:
        counts: Tally[tuple[str, ...]] = Tally()
        oldest: dict[tuple[str, ...], float] = {}
        for group in groups:
            anywhere = len(group.gpus) == len(self._known.gpus)
            for gpu in self._known.anywhere if anywhere and group.task else group.gpus:
                counts[gpu, group.task or cat.OTHER, group.reason.name.lower()] += group.number
            if group.oldest_at is not None:
                for gpu in group.gpus:
                    _keep_least(oldest, gpu, group.oldest_at + since_1970)
        yield self._set(cat.WAITERS, counts, absent=0)
        yield self._set(cat.OLDEST_WAITER, oldest)

    def _leases(self, groups: Iterable[Leases], since_1970: float) -> Iterator[Family]:
        counts: dict[tuple[str, ...], float] = {}
        oldest: dict[tuple[str, ...], float] = {}
        used: Tally[tuple[str, ...]] = Tally()
        for group in groups:
            counts[group.gpu, group.task, group.state.name.lower()] = group.number
            _keep_least(oldest, group.gpu, group.oldest_at + since_1970)
            for source, amount in (("nvml", group.seen), ("reported", group.declared)):
                if amount is not None:
                    used[group.gpu, group.task, source] += amount
        yield self._set(cat.LEASES, counts, absent=0)
        yield self._set(cat.OLDEST_LEASE, oldest)
        yield self._set(cat.LEASE_MEMORY_USED, used)

    def _facts(self, lease: LeaseView, spec: GpuSpec) -> tuple[str, ...]:
        holder = lease.holder
        pid = str(holder.process.pid) if holder.process else ""
        task = self._known.task(lease.task_type)
        return spec.key, spec.uuid, task, lease.lease_id, holder.namespace, holder.pod, holder.client_id, pid

    def _gpus(self, gpus: tuple[GpuView, ...]) -> Iterator[Family]:
        specs = [gpu.spec for gpu in gpus]
        yield Facts(
            cat.GPU_INFO,
            [((s.key, s.uuid, str(s.index), s.name, s.driver_version, s.source), 1) for s in specs],
        )
        for metric, figure in _LEDGER.items():
            yield self._set(metric, {(gpu.spec.key,): figure(gpu) for gpu in gpus})
        read = [gpu for gpu in gpus if gpu.health is GpuHealth.OK]
        for metric, name in _READINGS.items():
            yield self._set(metric, {(gpu.spec.key,): getattr(gpu.reading, name) for gpu in read})
        yield self._set(cat.GPU_PROCESSES, _process_counts(read))


def _analysed(gpus: tuple[Analysed, ...]) -> Iterator[Family]:
    """Written anew each time: a status or a holder that has changed leaves no series behind."""
    yield Facts(cat.UTILIZATION_SCORE, (((*each[:3],), each.score) for each in gpus))
    yield Facts(cat.UTILIZATION_STATUS, (((*each[:3], each.status), 1) for each in gpus))
    yield Facts(cat.ANALYSIS_CONFIDENCE, (((*each[:3], each.judgement), each.confidence) for each in gpus))
    yield Facts(cat.ANALYSIS_ADJUSTED, (((*each[:3],), each.adjusted_score) for each in gpus))


def _keep_least(least: dict[tuple[str, ...], float], gpu: str, at: float) -> None:
    least[gpu,] = min(at, least.get((gpu,), at))


def _process_counts(gpus: Iterable[GpuView]) -> Figures:
    counts: dict[tuple[str, ...], float | None] = {}
    for gpu in gpus:
        listed = gpu.reading.processes if gpu.reading else None
        if listed is not None:
            counts[gpu.spec.key, "yes"] = len(gpu.owners)
            counts[gpu.spec.key, "no"] = len(listed) - len(gpu.owners)
    return counts
