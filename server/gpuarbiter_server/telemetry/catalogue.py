"""Every metric once: name, type, labels, buckets and help. Units are base units and stand in the name."""

from dataclasses import dataclass

PREFIX = "gpu_arbiter_"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric family; the name is without the prefix, a counter's without `_total`."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_WAITS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_HOLDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)

ACQUIRE = Metric("acquire", "counter", "Requests by how they turned out.", ("gpu", "task", "outcome"))
QUEUE_WAIT = Metric(
    "queue_wait_seconds", "histogram", "Time from request to grant or refusal.", ("task", "outcome"), _WAITS
)
LEASE_HOLD = Metric("lease_hold_seconds", "histogram", "Time from grant to end of a lease.", ("task",), _HOLDS)
LEASE_ENDS = Metric("lease_ends", "counter", "Ended leases by how they ended.", ("gpu", "task", "end"))
WATCHDOG = Metric("watchdog_actions", "counter", "What the watchdog did.", ("gpu", "task", "action"))
YIELDS = Metric("yield_requests", "counter", "Yield requests by reason.", ("gpu", "task", "reason"))
WORK = Metric("work", "counter", "Work that holders told of, or were seen to fail at.", ("task", "device", "result"))
WAITERS = Metric("waiters", "gauge", "Waiting requests by what keeps them back.", ("gpu", "task", "reason"))
LEASES = Metric("leases", "gauge", "Live leases by state.", ("gpu", "task", "state"))
QUEUE_LIMIT = Metric("queue_limit", "gauge", "Requests that may wait for the GPU.", ("gpu",))
COMMITTED = Metric("memory_committed_bytes", "gauge", "Memory promised to leases.", ("gpu",))
UNLEASED = Metric("memory_unleased_bytes", "gauge", "Memory used by processes that hold no lease.", ("gpu",))
ADMISSIBLE = Metric("memory_admissible_bytes", "gauge", "What a new lease could declare now.", ("gpu",))
LIMIT = Metric("memory_limit_bytes", "gauge", "Total memory less the headroom.", ("gpu",))
NVML_UP = Metric("nvml_up", "gauge", "1 when NVML answers.")
GPU_UP = Metric("gpu_up", "gauge", "1 when the GPU is there; a stale reading is not held against it.", ("gpu",))
GPU_INFO = Metric(
    "gpu",
    "info",
    "What a GPU is.",
    ("gpu", "gpu_uuid", "gpu_index", "gpu_name", "driver_version", "source"),
)
GPU_TOTAL = Metric("gpu_memory_total_bytes", "gauge", "Memory of the GPU.", ("gpu",))
GPU_USED = Metric("gpu_memory_used_bytes", "gauge", "Memory in use, as the driver sees it.", ("gpu",))
GPU_FREE = Metric("gpu_memory_free_bytes", "gauge", "Memory that is free, as the driver sees it.", ("gpu",))
GPU_UTILIZATION = Metric("gpu_utilization_ratio", "gauge", "Share of time with work on the GPU.", ("gpu",))
GPU_BANDWIDTH = Metric("gpu_memory_bandwidth_ratio", "gauge", "Share of time with memory traffic.", ("gpu",))
GPU_POWER = Metric("gpu_power_watts", "gauge", "Power draw.", ("gpu",))
GPU_POWER_LIMIT = Metric("gpu_power_limit_watts", "gauge", "Power limit in force.", ("gpu",))
GPU_TEMPERATURE = Metric("gpu_temperature_celsius", "gauge", "Temperature of the GPU.", ("gpu",))
GPU_CLOCK = Metric("gpu_sm_clock_hertz", "gauge", "Clock of the streaming multiprocessors.", ("gpu",))
GPU_PROCESSES = Metric("gpu_processes", "gauge", "Processes on the GPU, with and without a lease.", ("gpu", "leased"))
NVML_POLL = Metric(
    "nvml_poll_seconds",
    "histogram",
    "Time of one look at one GPU.",
    (),
    (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0),
)
JOURNAL_COMMIT = Metric(
    "journal_commit_seconds",
    "histogram",
    "Time of one commit of the journal.",
    (),
    (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0),
)
JOURNAL_ERRORS = Metric("journal_errors", "counter", "Commits of the journal that failed or took too long.")
BUILD_INFO = Metric("build", "info", "Version of the arbiter.", ("version",))

CATALOGUE = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
