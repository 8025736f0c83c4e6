"""What is counted and measured while things happen. What is so at the moment of a scrape is in `gauges`.

Labels are bounded: `task` is one of the configured task types or "other", never a client's free text.
Every known label set of a counter is there from the start, at 0: one that is born at 1 is invisible to increase().
"""

import threading
from collections.abc import Callable, Iterable

from gpuarbiter_server.core.effects import Recorded
from gpuarbiter_server.core.model import EndReason, EventType, WorkReport, YieldReason
from gpuarbiter_server.telemetry import catalogue as cat
from gpuarbiter_server.telemetry.series import Distributions, Exemplar, Family, Values
from gpuarbiter_server.telemetry.sources import Known

# Leases that a yield request stands for, whose answer is timed; more are not.
_MOST_TIMED = 10_000


class Metrics:
    """An observer that counts.

    clock: monotonic seconds, as the core counts them. trace: the ids of the trace and span of what was observed last,
    where it is sampled.
    """

    def __init__(
        self, known: Known, clock: Callable[[], float], trace: Callable[[], Exemplar | None] = lambda: None
    ) -> None:
        self._known = known
        self._clock = clock
        self._trace = trace
        self._acquire = Values(cat.ACQUIRE)
        self._ends = Values(cat.LEASE_ENDS)
        self._seconds = Values(cat.LEASE_SECONDS)
        self._watchdog = Values(cat.WATCHDOG)
        self._yields = Values(cat.YIELDS)
        self._disconnects = Values(cat.DISCONNECTS)
        self._work = Values(cat.WORK)
        self._overuse = Values(cat.OVERUSE)
        self._journal_errors = Values(cat.JOURNAL_ERRORS)
        self._messages = Values(cat.RPC_MESSAGES)
        self._wait = Distributions(cat.QUEUE_WAIT)
        self._hold = Distributions(cat.LEASE_HOLD)
        self._response = Distributions(cat.YIELD_RESPONSE)
        self._items = Distributions(cat.WORK_ITEMS)
        self._duration = Distributions(cat.WORK_DURATION)
        self._peak = Distributions(cat.LEASE_MEMORY_PEAK)
        self._recovery = Distributions(cat.MEMORY_RECOVERY)
        self._poll = Distributions(cat.NVML_POLL)
        self._commit = Distributions(cat.JOURNAL_COMMIT)
        self._lag = Distributions(cat.LOOP_LAG)
        self._analyses = Values(cat.ANALYSIS_RUNS)
        self._actions = Values(cat.ANALYSIS_ACTIONS)
        self._analysis = Distributions(cat.ANALYSIS_DURATION)
        self._model = Values(cat.MODEL_REQUESTS)
        self._last = Values(cat.WORK_LAST, start=None)
        self._shortest = Values(cat.WORK_MIN, start=None)
        self._longest = Values(cat.WORK_MAX, start=None)
        self._last_items = Values(cat.WORK_LAST_ITEMS, start=None)
        self._kept: tuple[Values | Distributions, ...] = tuple(
            each for each in vars(self).values() if isinstance(each, Values | Distributions)
        )
        # Each GPU is read by a thread of its own.
        self._polling = threading.Lock()
        # By lease, when it was first asked to yield.
        self._asked: dict[str, float] = {}
        self._expect_known()

    def configure(self, known: Known) -> None:
        """What the labels can be now. What was counted before stays as it was; what never was goes, if it cannot be."""
        self._known = known
        for family in self._kept:
            # Who counts messages holds on to their series.
            if isinstance(family, Values) and family is not self._messages:
                family.drop_unused(*(known.values(label) for label in family.metric.labels))
        self._expect_known()

    def families(self) -> tuple[Family, ...]:
        """Everything that is counted."""
        return self._kept

    def _expect_known(self) -> None:
        for family in self._kept:
            if isinstance(family, Values):
                family.expect(*(self._known.values(label) for label in family.metric.labels))

    # -- what others than the core tell --

    def message_counter(self, direction: str, kind: str) -> Callable[[], None]:
        """What counts a message of this type."""
        return self._messages[direction, kind].inc

    def observe_poll(self, seconds: float) -> None:
        """One look at one GPU took so long. Safe from any thread."""
        with self._polling:
            self._poll[()].observe(seconds)

    def observe_lag(self, seconds: float) -> None:
        """A timer of the event loop rang so late."""
        self._lag[()].observe(seconds)

    def analysis_ran(self, ok: bool, seconds: float) -> None:
        """A run of the analysis ended so, and took so long."""
        self._analyses["ok" if ok else "failed",].inc()
        self._analysis[()].observe(seconds)

    def model_asked(self, result: str) -> None:
        """So it turned out when a model was to judge a GPU."""
        self._model[result,].inc()

    def analysis_acted(self, action: str, result: str) -> None:
        """The analysis did something, with this result; both as the catalogue has them."""
        self._actions[action, result].inc()

    def journal_committed(self, seconds: float) -> None:
        """A commit of the journal took so long. From the journal's thread only."""
        self._commit[()].observe(seconds)

    def journal_failed(self) -> None:
        """A commit of the journal failed, or took too long."""
        self._journal_errors[()].inc()

    # -- what the core records --

    def observe(self, recorded: Recorded) -> None:
        """Counts an event."""
        task = self._known.task(recorded.task_type)
        if recorded.report is not None:
            self._worked(recorded.report, task)
        gpus = recorded.gpus or self._known.anywhere
        match recorded.type:
            case EventType.GRANTED | EventType.DECLINED | EventType.FAILED:
                self._decided(recorded, gpus, task)
            case EventType.ENDED:
                self._ended(recorded, gpus, task)
            case EventType.HOLD_EXCEEDED:
                _count(self._watchdog, gpus, task, "warn")
            case EventType.YIELD_REQUESTED:
                self._asked_to_yield(recorded, gpus, task)
            case EventType.DETACHED:
                self._disconnects["holding" if recorded.lease_id else "waiting",].inc()
            case EventType.MEMORY_OVERUSE:
                _count(self._overuse, gpus, task)
            case EventType.MEMORY_RECOVERED:
                self._recovery["recovered",].observe(recorded.waited or 0.0)

    def _decided(self, recorded: Recorded, gpus: tuple[str, ...], task: str) -> None:
        _count(self._acquire, gpus, task, recorded.outcome)
        if recorded.waited is not None:
            outcome = "granted" if recorded.type is EventType.GRANTED else "abandoned"
            self._wait[task, outcome].observe(recorded.waited, self._trace())

    def _ended(self, recorded: Recorded, gpus: tuple[str, ...], task: str) -> None:
        held = recorded.held or 0.0
        namespace = self._known.namespace(recorded.holder.namespace if recorded.holder else "")
        for gpu in gpus:
            self._ends[gpu, task, recorded.end_reason.name.lower()].inc()
            self._seconds[gpu, task, namespace].inc(held)
        self._hold[task,].observe(held, self._trace())
        if recorded.memory_peak_bytes is not None:
            self._peak[task,].observe(recorded.memory_peak_bytes)
        asked = self._asked.pop(recorded.lease_id, None)
        if asked is not None:
            self._response[task,].observe(self._clock() - asked)
        match recorded.end_reason:
            case EndReason.MAX_HOLD:
                _count(self._watchdog, gpus, task, "revoke")
            case EndReason.DISCONNECTED | EndReason.TTL_EXPIRED | EndReason.NOT_RECOVERED:
                self._disconnects["expired",].inc()
            case EndReason.HOLDER_DIED:
                self._disconnects["process_died",].inc()

    def _asked_to_yield(self, recorded: Recorded, gpus: tuple[str, ...], task: str) -> None:
        _count(self._yields, gpus, task, recorded.yield_reason.name.lower())
        if recorded.yield_reason is YieldReason.MAX_HOLD:
            _count(self._watchdog, gpus, task, "yield")
        if len(self._asked) < _MOST_TIMED:
            self._asked.setdefault(recorded.lease_id, self._clock())

    def _worked(self, report: WorkReport, task: str) -> None:
        device = "cpu" if report.device.name == "CPU" else "gpu"
        self._work[task, device, report.result.name.lower()].inc()
        if report.work_items:
            self._items[task,].observe(report.work_items)
            self._last_items[task,].set(report.work_items)
        if report.duration is not None:
            self._duration[task, device].observe(report.duration)
            self._last[task,].set(report.duration)
            shortest, longest = self._shortest[task,], self._longest[task,]
            shortest.set(min(report.duration, report.duration if shortest.value is None else shortest.value))
            longest.set(max(report.duration, longest.value or 0.0))


def _count(family: Values, gpus: Iterable[str], *labels: str) -> None:
    for gpu in gpus:
        family[gpu, *labels].inc()
