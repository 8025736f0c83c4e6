"""Prometheus metrics: counters and histograms from what is recorded, gauges from a snapshot at scrape time.

Labels are bounded: `task` is one of the configured task types or "other", never a client's free text.
A gauge of something that is not read any more is absent, not stale.
"""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric as Family

from gpuarbiter_server.core.effects import Recorded
from gpuarbiter_server.core.model import EndReason, EventType, GpuHealth, YieldReason
from gpuarbiter_server.core.views import GpuView, SnapshotView
from gpuarbiter_server.telemetry import catalogue as cat

OTHER = "other"
ANY_GPU = "any"


class Metrics:
    """An observer that counts, and a registry that can be scraped."""

    def __init__(self, version: str, tasks: Iterable[str], snapshot: Callable[[], SnapshotView]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=False)
        self._tasks = frozenset(tasks)
        self._acquire = self._counter(cat.ACQUIRE)
        self._ends = self._counter(cat.LEASE_ENDS)
        self._watchdog = self._counter(cat.WATCHDOG)
        self._yields = self._counter(cat.YIELDS)
        self._work = self._counter(cat.WORK)
        self._wait = self._histogram(cat.QUEUE_WAIT)
        self._hold = self._histogram(cat.LEASE_HOLD)
        self._poll = self._histogram(cat.NVML_POLL)
        self._commit = self._histogram(cat.JOURNAL_COMMIT)
        self._journal_errors = self._counter(cat.JOURNAL_ERRORS)
        self.registry.register(_Gauges(version, snapshot, self.task))

    def configure(self, tasks: Iterable[str]) -> None:
        """Other task types are configured now. What was counted before stays as it was."""
        self._tasks = frozenset(tasks)

    def task(self, name: str) -> str:
        """A task type as a label."""
        return name if name in self._tasks else OTHER

    def observe_poll(self, seconds: float) -> None:
        """One look at one GPU took so long. Safe from any thread."""
        self._poll.observe(seconds)

    def journal_committed(self, seconds: float) -> None:
        """A commit of the journal took so long. Safe from any thread."""
        self._commit.observe(seconds)

    def journal_failed(self) -> None:
        """A commit of the journal failed, or took too long."""
        self._journal_errors.inc()

    def observe(self, recorded: Recorded) -> None:
        """Counts an event."""
        task = self.task(recorded.task_type)
        if recorded.report is not None:
            report = recorded.report
            self._work.labels(task, report.device.name.lower(), report.result.name.lower()).inc()
        gpus = recorded.gpus or (ANY_GPU,)
        match recorded.type:
            case EventType.GRANTED | EventType.DECLINED | EventType.FAILED:
                self._decided(recorded, gpus, task)
            case EventType.ENDED:
                self._count(self._ends, gpus, task, recorded.end_reason.name.lower())
                self._hold.labels(task).observe(recorded.held or 0.0)
                if recorded.end_reason is EndReason.MAX_HOLD:
                    self._count(self._watchdog, gpus, task, "revoke")
            case EventType.HOLD_EXCEEDED:
                self._count(self._watchdog, gpus, task, "warn")
            case EventType.YIELD_REQUESTED:
                self._count(self._yields, gpus, task, recorded.yield_reason.name.lower())
                if recorded.yield_reason is YieldReason.MAX_HOLD:
                    self._count(self._watchdog, gpus, task, "yield")

    def _decided(self, recorded: Recorded, gpus: tuple[str, ...], task: str) -> None:
        self._count(self._acquire, gpus, task, recorded.outcome)
        if recorded.waited is not None:
            outcome = "granted" if recorded.type is EventType.GRANTED else "abandoned"
            self._wait.labels(task, outcome).observe(recorded.waited)

    def _count(self, counter: Counter, gpus: Iterable[str], task: str, what: str) -> None:
        for gpu in gpus:
            counter.labels(gpu, task, what).inc()

    def _counter(self, metric: cat.Metric) -> Counter:
        return Counter(cat.PREFIX + metric.name, metric.help, metric.labels, registry=self.registry)

    def _histogram(self, metric: cat.Metric) -> Histogram:
        return Histogram(
            cat.PREFIX + metric.name, metric.help, metric.labels, registry=self.registry, buckets=metric.buckets
        )


class _Gauges:
    """What is so at the moment of the scrape."""

    def __init__(self, version: str, snapshot: Callable[[], SnapshotView], task: Callable[[str], str]) -> None:
        self._version = version
        self._snapshot = snapshot
        self._task = task

    def collect(self) -> Iterator[Family]:
        """All gauges of one snapshot."""
        view = self._snapshot()
        yield _info(cat.BUILD_INFO, [{"version": self._version}])
        yield _gauge(cat.NVML_UP, {(): float(view.nvml_up)})
        yield from self._leases_and_waiters(view)
        yield from _gpus(view.gpus)

    def _leases_and_waiters(self, view: SnapshotView) -> Iterator[Family]:
        leases: Tally[tuple[str, ...]] = Tally()
        for lease in view.leases:
            for grant in lease.gpus:
                leases[grant.spec.key, self._task(lease.task_type), lease.state.name.lower()] += 1
        waiters: Tally[tuple[str, ...]] = Tally()
        every = {gpu.spec.key for gpu in view.gpus}
        for ticket in view.queue:
            gpus = (ANY_GPU,) if set(ticket.candidates) == every else ticket.candidates
            for gpu in gpus:
                waiters[gpu, self._task(ticket.task_type), ticket.reason.name.lower()] += 1
        yield _gauge(cat.LEASES, leases)
        yield _gauge(cat.WAITERS, waiters)


def _gpus(gpus: tuple[GpuView, ...]) -> Iterator[Family]:
    yield _info(cat.GPU_INFO, [_facts(gpu) for gpu in gpus])
    figures: dict[cat.Metric, Callable[[GpuView], float | None]] = {
        cat.QUEUE_LIMIT: lambda gpu: gpu.queue_limit,
        cat.COMMITTED: lambda gpu: gpu.committed_bytes,
        cat.UNLEASED: lambda gpu: gpu.unleased_bytes,
        cat.ADMISSIBLE: lambda gpu: gpu.admissible_bytes,
        cat.LIMIT: lambda gpu: gpu.spec.total_bytes - gpu.headroom_bytes,
        cat.GPU_UP: lambda gpu: float(gpu.health is not GpuHealth.LOST),
        cat.GPU_TOTAL: lambda gpu: gpu.spec.total_bytes,
    }
    readings: dict[cat.Metric, str] = {
        cat.GPU_USED: "memory_used_bytes",
        cat.GPU_FREE: "memory_free_bytes",
        cat.GPU_UTILIZATION: "utilization_ratio",
        cat.GPU_BANDWIDTH: "memory_bandwidth_ratio",
        cat.GPU_POWER: "power_watts",
        cat.GPU_POWER_LIMIT: "power_limit_watts",
        cat.GPU_TEMPERATURE: "temperature_celsius",
        cat.GPU_CLOCK: "sm_clock_hertz",
    }
    for metric, figure in figures.items():
        yield _gauge(metric, {(gpu.spec.key,): figure(gpu) for gpu in gpus})
    read = [gpu for gpu in gpus if gpu.health is GpuHealth.OK]
    for metric, name in readings.items():
        yield _gauge(metric, {(gpu.spec.key,): getattr(gpu.reading, name) for gpu in read})
    yield _gauge(cat.GPU_PROCESSES, _process_counts(read))


def _process_counts(gpus: Iterable[GpuView]) -> dict[tuple[str, ...], float | None]:
    counts: dict[tuple[str, ...], float | None] = {}
    for gpu in gpus:
        listed = gpu.reading.processes if gpu.reading else None
        if listed is not None:
            counts[gpu.spec.key, "yes"] = len(gpu.owners)
            counts[gpu.spec.key, "no"] = len(listed) - len(gpu.owners)
    return counts


def _facts(gpu: GpuView) -> dict[str, str]:
    spec = gpu.spec
    return {
        "gpu": spec.key,
        "gpu_uuid": spec.uuid,
        "gpu_index": str(spec.index),
        "gpu_name": spec.name,
        "driver_version": spec.driver_version,
        "source": spec.source,
    }


def _gauge(metric: cat.Metric, values: Mapping[tuple[str, ...], float | None]) -> GaugeMetricFamily:
    """A gauge family; what is None is absent."""
    family = GaugeMetricFamily(cat.PREFIX + metric.name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        if value is not None:
            family.add_metric(labels, value)
    return family


def _info(metric: cat.Metric, values: Iterable[Mapping[str, str]]) -> InfoMetricFamily:
    family = InfoMetricFamily(cat.PREFIX + metric.name, metric.help)
    for facts in values:
        family.add_metric((), dict(facts))
    return family
