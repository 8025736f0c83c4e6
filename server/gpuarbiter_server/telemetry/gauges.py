"""What is so at the moment of a scrape. A gauge of something that is not read any more is absent, not stale."""

from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

from gpuarbiter_server.core.model import GpuHealth, GpuSpec
from gpuarbiter_server.core.views import GpuView, LeaseView, SnapshotView, WaiterView
from gpuarbiter_server.telemetry import catalogue as cat
from gpuarbiter_server.telemetry.series import Facts, Family, Values
from gpuarbiter_server.telemetry.sources import Known, Sources, TaskType

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
_POLICIES: dict[cat.Metric, Callable[[TaskType], float]] = {
    cat.HOLD_LIMIT: lambda task: task.max_hold,
    cat.WAIT_OBJECTIVE: lambda task: task.wait_objective,
    cat.HOLD_OBJECTIVE: lambda task: task.hold_objective,
}


class Gauges:
    """Every gauge and info, and what others count. Known label sets are shown at 0, and their text is kept."""

    def __init__(self, known: Known, sources: Sources) -> None:
        self._sources = sources
        families = (cat.LEASES, cat.WAITERS, cat.OLDEST_WAITER, cat.OLDEST_LEASE, cat.LEASE_MEMORY_USED)
        gpus = (*_LEDGER, *_READINGS, cat.GPU_PROCESSES, cat.NVML_UP, *_POLICIES)
        self._values = {metric: Values(metric, start=None) for metric in (*families, *gpus)}
        self.configure(known)

    def configure(self, known: Known) -> None:
        """What the labels can be from now on; a label set that is not known any more is not shown unless it is met."""
        self._known = known
        for metric in (cat.LEASES, cat.WAITERS):
            self._values[metric].clear()
            self._values[metric].expect(*(known.values(label) for label in metric.labels))

    def families(self) -> Iterator[Family]:
        """All of them, of one moment."""
        view, waiters = self._sources.snapshot(), self._sources.waiters(_TOLD_APART)
        yield Facts(cat.BUILD_INFO, [((self._sources.version,), 1)])
        yield self._set(cat.NVML_UP, {(): float(view.nvml_up)})
        for metric, figure in _POLICIES.items():
            yield self._set(metric, self._known.by_task(figure))
        yield self._set(cat.LEASES, self._leases(view.leases), absent=0)
        yield self._set(cat.WAITERS, self._waiters(view, waiters), absent=0)
        yield from self._oldest(view, waiters)
        yield self._set(cat.LEASE_MEMORY_USED, self._used_by_leases(view.leases))
        shown = view.leases[:_MOST_LEASES] if self._known.lease_info else ()
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
        yield from self._gpus(view.gpus)
        yield Facts(cat.SPANS_DROPPED, [((), float(self._sources.spans_dropped()))])
        errors = dict(self._sources.nvml_errors)
        yield Facts(cat.NVML_ERRORS, ((labels, float(count)) for labels, count in errors.items()))

    def _set(self, metric: cat.Metric, figures: Figures, *, absent: float | None = None) -> Values:
        """A family as these figures have it; what is not among them is `absent`."""
        values = self._values[metric]
        for labels, value in values.items():
            value.set(figures.get(labels, absent))
        for labels in figures.keys() - values.keys():
            values[labels].set(figures[labels])
        return values

    def _leases(self, leases: Iterable[LeaseView]) -> Figures:
        return Tally(
            (grant.spec.key, self._known.task(lease.task_type), lease.state.name.lower())
            for lease in leases
            for grant in lease.gpus
        )

    def _waiters(self, view: SnapshotView, waiters: Iterable[WaiterView]) -> Figures:
        every = {gpu.spec.key for gpu in view.gpus}
        counts: Tally[tuple[str, ...]] = Tally()
        told_apart: Tally[str] = Tally()
        for waiter in waiters:
            told_apart.update(waiter.gpus)
            task, reason = self._known.task(waiter.task_type), waiter.reason.name.lower()
            for key in self._known.anywhere if waiter.gpus == every else waiter.gpus:
                counts[key, task, reason] += 1
        for gpu in view.gpus:
            behind = gpu.queue_length - told_apart[gpu.spec.key]
            if behind:
                counts[gpu.spec.key, cat.OTHER, "queue_order"] += behind
        return counts

    def _oldest(self, view: SnapshotView, waiters: Iterable[WaiterView]) -> Iterator[Family]:
        since_1970 = self._sources.wall() - view.taken_at
        enqueued: dict[str, float] = {}
        for waiter in waiters:
            for gpu in waiter.gpus:
                enqueued[gpu] = min(waiter.enqueued_at, enqueued.get(gpu, waiter.enqueued_at))
        granted: dict[str, float] = {}
        for lease in view.leases:
            for grant in lease.gpus:
                key = grant.spec.key
                granted[key] = min(lease.granted_at, granted.get(key, lease.granted_at))
        for metric, oldest in ((cat.OLDEST_WAITER, enqueued), (cat.OLDEST_LEASE, granted)):
            yield self._set(metric, {(gpu,): at + since_1970 for gpu, at in oldest.items()})

    def _used_by_leases(self, leases: Iterable[LeaseView]) -> Figures:
        used: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for lease in leases:
            for grant in lease.gpus:
                source = "reported" if grant.observed_bytes is None else "nvml"
                amount = grant.declared_bytes if grant.observed_bytes is None else grant.observed_bytes
                used[grant.spec.key, self._known.task(lease.task_type), source] += amount
        return used

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


def _process_counts(gpus: Iterable[GpuView]) -> Figures:
    counts: dict[tuple[str, ...], float | None] = {}
    for gpu in gpus:
        listed = gpu.reading.processes if gpu.reading else None
        if listed is not None:
            counts[gpu.spec.key, "yes"] = len(gpu.owners)
            counts[gpu.spec.key, "no"] = len(listed) - len(gpu.owners)
    return counts
