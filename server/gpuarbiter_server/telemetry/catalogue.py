"""Every metric once: name, type, labels with their values, buckets, help, and what it was called elsewhere.

Units are base units and stand in the name. Label sets are bounded: a label's values are a fixed list, the
GPUs of this machine, or the configured task types and namespaces, each with "other" for all the rest.
What is the lease's own (its id, its request, its holder's pid) is never a label, but for `lease_info`, which
has to be asked for.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum

from gpuarbiter_server.core.model import EndReason, LeaseState, WaitReason, YieldReason

PREFIX = "gpu_arbiter_"
OTHER = "other"
ANY_GPU = "any"


class Values(Enum):
    """Where the values of a label come from when they are no fixed list."""

    GPUS = "the keys of the GPUs"
    GPUS_OR_ANY = 'the keys of the GPUs, and "any" for a request that may have any of several'
    TASKS = 'the configured task types, and "other"'
    NAMESPACES = 'those in `telemetry.namespaces`, and "other"'
    FREE = "as the machine or the holder tells"


@dataclass(frozen=True, slots=True)
class Label:
    """A label and the values that it can have."""

    name: str
    values: tuple[str, ...] | Values


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric family; the name is without the prefix, a counter's without `_total`, an info's without `_info`."""

    name: str
    kind: str
    help: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    # What it takes over from earlier arbiters, for the table "if you come from …".
    formerly: tuple[str, ...] = ()

    @property
    def family_name(self) -> str:
        """The name of the family, as OpenMetrics has it: without what its samples end in."""
        return PREFIX + self.name

    @property
    def full_name(self) -> str:
        """The name of its samples, as queries have it; of a histogram without `_bucket`."""
        return self.family_name + {"counter": "_total", "info": "_info"}.get(self.kind, "")

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of its labels, in their order."""
        return tuple(label.name for label in self.labels)


def _names(members: Iterable[IntEnum]) -> tuple[str, ...]:
    return tuple(member.name.lower() for member in members if member.value)


_GPU = Label("gpu", Values.GPUS)
_GPU_OR_ANY = Label("gpu", Values.GPUS_OR_ANY)
_TASK = Label("task", Values.TASKS)
_OUTCOME = Label(
    "outcome",
    ("granted", "skipped", "fallback_cpu", "timeout", "queue_full", "no_memory", "cancelled", "error"),
)
_DEVICE = Label("device", ("gpu", "cpu"))
_RESULT = Label("result", ("ok", "failed", "out_of_memory", "cancelled", "unspecified"))

_WAITS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_HOLDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
_COMMITS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
_POLLS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0)
_ANALYSES = (0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0)
_LAGS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_ITEMS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 4096.0)
_MEMORY = tuple(float(2**power) for power in range(28, 39))

# -- requests and leases --

ACQUIRE = Metric(
    "acquire",
    "counter",
    "Requests by how they turned out.",
    (_GPU_OR_ANY, _TASK, _OUTCOME),
    formerly=("acquire_total{status}", "timeouts_total", "queue_full_total", "cpu_fallback_total per module"),
)
QUEUE_WAIT = Metric(
    "queue_wait_seconds",
    "histogram",
    "Time from a request to its grant, or to its end without one.",
    (_TASK, Label("outcome", ("granted", "abandoned"))),
    _WAITS,
    formerly=("queue_wait_ms",),
)
LEASE_HOLD = Metric(
    "lease_hold_seconds",
    "histogram",
    "Time from grant to end of a lease.",
    (_TASK,),
    _HOLDS,
    formerly=("hold_ms", "total_exec_time_seconds (_sum)"),
)
LEASE_ENDS = Metric(
    "lease_ends", "counter", "Ended leases by how they ended.", (_GPU, _TASK, Label("end", _names(EndReason)))
)
LEASE_SECONDS = Metric(
    "lease_seconds",
    "counter",
    "Time that leases were held, counted when they end.",
    (_GPU, _TASK, Label("holder_namespace", Values.NAMESPACES)),
    formerly=("namespace counts and averages",),
)
LEASE_INFO = Metric(
    "lease",
    "info",
    "A live lease, where `telemetry.lease_info` asks for it.",
    tuple(
        Label(name, Values.FREE)
        for name in (
            *("gpu", "gpu_uuid", "task", "lease_id"),
            *("holder_namespace", "holder_pod", "client_id", "host_pid"),
        )
    ),
    formerly=("client_info",),
)
LEASE_USED = Metric(
    "lease_used_bytes",
    "gauge",
    "Memory that the driver shows for a live lease, where `telemetry.lease_info` asks for it.",
    (Label("gpu", Values.FREE), Label("lease_id", Values.FREE)),
    formerly=("client_nvml_used_bytes per client",),
)
WAITERS = Metric(
    "waiters",
    "gauge",
    "Waiting requests by reason; each counts at every GPU that it names, at gpu=any where any of several will do.",
    (_GPU_OR_ANY, _TASK, Label("reason", _names(WaitReason))),
    formerly=("queue_depth", "queue_length", "request_queue_clients", "wait_queue_clients"),
)
LEASES = Metric(
    "leases",
    "gauge",
    "Live leases by state.",
    (_GPU, _TASK, Label("state", _names(LeaseState))),
    formerly=("running_clients",),
)
QUEUE_LIMIT = Metric("queue_limit", "gauge", "Requests that may wait for the GPU.", (_GPU,))
HOLD_LIMIT = Metric(
    "lease_hold_limit_seconds", "gauge", "max_hold of the policy; absent where there is no limit.", (_TASK,)
)
WAIT_OBJECTIVE = Metric(
    "queue_wait_objective_seconds", "gauge", "wait_objective of the policy; absent where there is none.", (_TASK,)
)
HOLD_OBJECTIVE = Metric(
    "lease_hold_objective_seconds", "gauge", "hold_objective of the policy; absent where there is none.", (_TASK,)
)
OLDEST_WAITER = Metric(
    "oldest_waiter_enqueued_timestamp_seconds",
    "gauge",
    "When the longest waiting request for the GPU was enqueued; absent while none waits.",
    (_GPU,),
)
OLDEST_LEASE = Metric(
    "oldest_lease_granted_timestamp_seconds",
    "gauge",
    "When the longest held lease of the GPU was granted; absent while there is none.",
    (_GPU,),
)
WATCHDOG = Metric(
    "watchdog_actions",
    "counter",
    "What the watchdog did about leases past max_hold.",
    (_GPU, _TASK, Label("action", ("warn", "yield", "revoke"))),
    formerly=("watchdog_exceeded_total",),
)
YIELDS = Metric(
    "yield_requests",
    "counter",
    "Yield requests by reason.",
    (_GPU, _TASK, Label("reason", _names(YieldReason))),
    formerly=("drop_lock_total",),
)
YIELD_RESPONSE = Metric(
    "yield_response_seconds",
    "histogram",
    "Time from the first yield request to the end of the lease.",
    (_TASK,),
    _HOLDS,
)
DISCONNECTS = Metric(
    "client_disconnects",
    "counter",
    "Clients whose stream broke and that may come back, whose lease ended for want of them, or whose process died.",
    (Label("reason", ("waiting", "holding", "expired", "process_died")),),
    formerly=("client_disconnect_total",),
)
RPC_MESSAGES = Metric(
    "rpc_messages",
    "counter",
    "Messages of the contract, by direction and type.",
    (Label("direction", ("received", "sent")), Label("type", Values.FREE)),
    formerly=("messages_total{type}",),
)

# -- work that holders tell of --

WORK = Metric(
    "work",
    "counter",
    "Work that holders told of, or were seen to fail at.",
    (_TASK, _DEVICE, _RESULT),
    formerly=("total_executions", "total_failures", "executions and failures per module"),
)
WORK_ITEMS = Metric(
    "work_items",
    "histogram",
    "Items of a piece of work (sentences, images, …), as its holder counts them.",
    (_TASK,),
    _ITEMS,
    formerly=("last_batch_size", "last_tree_size", "last_constraints"),
)
WORK_DURATION = Metric(
    "work_duration_seconds",
    "histogram",
    "Time of a piece of work, as its holder measured it.",
    (_TASK, _DEVICE),
    _HOLDS,
    formerly=("latency average per module",),
)
WORK_LAST = Metric(
    "work_last_duration_seconds", "gauge", "The last work's time.", (_TASK,), formerly=("last latency per module",)
)
WORK_MIN = Metric(
    "work_min_duration_seconds", "gauge", "The shortest work's time.", (_TASK,), formerly=("min latency per module",)
)
WORK_MAX = Metric(
    "work_max_duration_seconds", "gauge", "The longest work's time.", (_TASK,), formerly=("max latency per module",)
)
WORK_LAST_ITEMS = Metric(
    "work_last_items", "gauge", "The last work's items.", (_TASK,), formerly=("last batch size per module",)
)

# -- memory --

COMMITTED = Metric(
    "memory_committed_bytes", "gauge", "Memory promised to leases.", (_GPU,), formerly=("running_memory_bytes",)
)
UNLEASED = Metric("memory_unleased_bytes", "gauge", "Memory used by processes that hold no lease.", (_GPU,))
ADMISSIBLE = Metric("memory_admissible_bytes", "gauge", "What a new lease could declare now.", (_GPU,))
LIMIT = Metric(
    "memory_limit_bytes", "gauge", "Total memory less the headroom.", (_GPU,), formerly=("memory_safe_limit_bytes",)
)
OVERCOMMITTED = Metric(
    "memory_overcommitted",
    "gauge",
    "1 while more is promised or used than there is, less the headroom.",
    (_GPU,),
    formerly=("memory_overloaded",),
)
LEASE_MEMORY_USED = Metric(
    "lease_memory_used_bytes",
    "gauge",
    "Memory of the live leases: as the driver shows it, or as they declared it where it cannot.",
    (_GPU, _TASK, Label("source", ("nvml", "reported"))),
    formerly=("client_nvml_used_bytes", "client_managed_allocated_bytes"),
)
LEASE_MEMORY_PEAK = Metric(
    "lease_memory_peak_bytes",
    "histogram",
    "The highest memory that was seen of a lease, once it has ended.",
    (_TASK,),
    _MEMORY,
    formerly=("managed_allocated_peak_bytes",),
)
OVERUSE = Metric(
    "memory_overuse",
    "counter",
    "Leases that were seen above what they had declared.",
    (_GPU, _TASK),
    formerly=("memory_quota_exceeded",),
)
MEMORY_RECOVERY = Metric(
    "memory_recovery_seconds",
    "histogram",
    "Time from the end of a lease until its memory was seen to be free, where a request waited for it.",
    (Label("result", ("recovered",)),),
    _WAITS,
)

# -- the GPUs as the driver shows them --

NVML_UP = Metric("nvml_up", "gauge", "1 when NVML answers.", formerly=("nvml_up", "gpu_sampler_up"))
GPU_UP = Metric(
    "gpu_up",
    "gauge",
    "1 when the GPU is there; a stale reading is not held against it.",
    (_GPU,),
    formerly=("gpu_available",),
)
GPU_INFO = Metric(
    "gpu",
    "info",
    "What a GPU is.",
    tuple(
        Label(name, Values.FREE) for name in ("gpu", "gpu_uuid", "gpu_index", "gpu_name", "driver_version", "source")
    ),
    formerly=("gpu_info", "gpu_device_name", "sampler_backend_info"),
)
GPU_TOTAL = Metric("gpu_memory_total_bytes", "gauge", "Memory of the GPU.", (_GPU,), formerly=("gpu_memory_total",))
GPU_USED = Metric(
    "gpu_memory_used_bytes",
    "gauge",
    "Memory in use, as the driver sees it.",
    (_GPU,),
    formerly=("gpu_memory_used", "memory_used_mb"),
)
GPU_FREE = Metric(
    "gpu_memory_free_bytes",
    "gauge",
    "Memory that is free, as the driver sees it.",
    (_GPU,),
    formerly=("gpu_memory_free",),
)
GPU_UTILIZATION = Metric(
    "gpu_utilization_ratio",
    "gauge",
    "Share of time with work on the GPU.",
    (_GPU,),
    formerly=("gpu_utilization_ratio", "core_utilization"),
)
GPU_BANDWIDTH = Metric(
    "gpu_memory_bandwidth_ratio",
    "gauge",
    "Share of time with memory traffic.",
    (_GPU,),
    formerly=("memory_copy_utilization",),
)
GPU_POWER = Metric("gpu_power_watts", "gauge", "Power draw.", (_GPU,), formerly=("power_usage_watts",))
GPU_POWER_LIMIT = Metric("gpu_power_limit_watts", "gauge", "Power limit in force.", (_GPU,))
GPU_TEMPERATURE = Metric("gpu_temperature_celsius", "gauge", "Temperature of the GPU.", (_GPU,))
GPU_CLOCK = Metric(
    "gpu_sm_clock_hertz", "gauge", "Clock of the streaming multiprocessors.", (_GPU,), formerly=("sm_clock_mhz",)
)
GPU_PROCESSES = Metric(
    "gpu_processes",
    "gauge",
    "Processes on the GPU, with and without a lease.",
    (_GPU, Label("leased", ("yes", "no"))),
    formerly=("gpu_process_count",),
)
NVML_POLL = Metric("nvml_poll_seconds", "histogram", "Time of one look at one GPU.", (), _POLLS)
NVML_ERRORS = Metric(
    "nvml_errors",
    "counter",
    "NVML calls that failed; unsupported queries are among them.",
    (Label("call", Values.FREE), Label("error", Values.FREE)),
)

# -- the analysis of their use --

_ANALYSED = tuple(Label(name, Values.FREE) for name in ("gpu", "namespace", "pod"))
UTILIZATION_SCORE = Metric(
    "gpu_utilization_score",
    "gauge",
    "How much of the GPU was used over the window of the analysis, 0 to 100.",
    _ANALYSED,
    formerly=("utilization_score",),
)
UTILIZATION_STATUS = Metric(
    "gpu_utilization_status",
    "gauge",
    "1 for the status that the score comes to.",
    (*_ANALYSED, Label("status", ("idle", "low", "normal", "high"))),
    formerly=("status label of utilization_score",),
)
ANALYSIS_CONFIDENCE = Metric(
    "analysis_confidence_ratio",
    "gauge",
    "How sure the analysis is of what it thinks of the GPU.",
    (*_ANALYSED, Label("judgement", ("active", "idle", "suspicious"))),
    formerly=("ai_analysis_confidence",),
)
ANALYSIS_ADJUSTED = Metric(
    "analysis_adjusted_score",
    "gauge",
    "The score if only what matters now counted, 0 to 100.",
    _ANALYSED,
    formerly=("ai_adjusted_score",),
)
ANALYSIS_RUNS = Metric(
    "analysis_runs",
    "counter",
    "Runs of the analysis.",
    (Label("result", ("ok", "failed")),),
    formerly=("analysis_total", "analysis_errors_total"),
)
ANALYSIS_DURATION = Metric(
    "analysis_duration_seconds",
    "histogram",
    "Time of one run of the analysis.",
    (),
    _ANALYSES,
    formerly=("analysis_duration_seconds",),
)
ANALYSIS_ACTIONS = Metric(
    "analysis_actions",
    "counter",
    "What the analysis did about GPUs that are held and hardly used; a dry run only says what it would do.",
    (Label("action", ("yield", "webhook", "notification")), Label("result", ("ok", "failed", "dry_run"))),
)

MODEL_REQUESTS = Metric(
    "analysis_model_requests",
    "counter",
    "GPUs that a model was to judge, by what became of it.",
    (
        Label(
            "result",
            ("ok", "unsure", "cached", "malformed", "timeout", "rate_limited", "refused", "error"),
        ),
    ),
)

# -- the arbiter itself --

JOURNAL_COMMIT = Metric("journal_commit_seconds", "histogram", "Time of one commit of the journal.", (), _COMMITS)
JOURNAL_ERRORS = Metric("journal_errors", "counter", "Commits of the journal that failed or took too long.")
LOOP_LAG = Metric(
    "event_loop_lag_seconds", "histogram", "How late a timer of the event loop rang, asked twice a second.", (), _LAGS
)
SPANS_DROPPED = Metric(
    "spans_dropped",
    "counter",
    "Spans that were lost: their export failed, or the queue for it was full.",
)
BUILD_INFO = Metric("build", "info", "Version of the arbiter.", (Label("version", Values.FREE),))

CATALOGUE = tuple(value for value in list(globals().values()) if isinstance(value, Metric))

# The sections of the reference, each by its first metric.
SECTIONS = {
    ACQUIRE: "Requests and leases",
    WORK: "Work that holders tell of",
    COMMITTED: "Memory",
    NVML_UP: "The GPUs as the driver shows them",
    UTILIZATION_SCORE: "The analysis of their use",
    JOURNAL_COMMIT: "The arbiter itself",
}
