"""The vocabulary of the core as frozen data: who asks, for what, on which GPU, with which reading.

Law: nothing here decides anything. Enum values equal those of the contract (a test proves it), so
that the API converts by value. Durations and times are seconds, memory is bytes, ratios are 0 to 1.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple


class BusyPolicy(IntEnum):
    """What a request does when it cannot be granted at once."""

    UNSPECIFIED = 0
    WAIT = 1
    SKIP = 2
    FALLBACK_CPU = 3

    @property
    def declines(self) -> bool:
        """Whether it answers Declined instead of an error."""
        return self in (BusyPolicy.SKIP, BusyPolicy.FALLBACK_CPU)


class Sharing(IntEnum):
    """Whether a lease has its GPUs for itself."""

    UNSPECIFIED = 0
    EXCLUSIVE = 1
    SHARED = 2


class Placement(IntEnum):
    """How GPUs are picked when the request leaves a choice."""

    UNSPECIFIED = 0
    LEAST_LOADED = 1
    BEST_FIT = 2
    ROUND_ROBIN = 3


class WaitReason(IntEnum):
    """Why a request is not granted yet, or why it was declined."""

    UNSPECIFIED = 0
    GPU_BUSY = 1
    MEMORY = 2
    MEMORY_RECOVERY = 3
    UTILIZATION = 4
    QUEUE_ORDER = 5
    SEQUENCE = 6
    QUOTA = 7
    CONCURRENCY_LIMIT = 8
    DRAINING = 9
    GPU_UNHEALTHY = 10
    RECOVERY = 11
    QUEUE_FULL = 12
    COOLDOWN = 13
    INFEASIBLE = 14
    JOURNAL = 15
    TIMEOUT = 16
    NO_READING = 17
    SHUTDOWN = 18


class YieldReason(IntEnum):
    """Why a holder is asked to yield."""

    UNSPECIFIED = 0
    QUANTUM = 1
    QUOTA = 2
    PREEMPTED = 3
    MAX_HOLD = 4
    IDLE = 5
    MEMORY_OVERUSE = 6
    DRAINING = 7
    OPERATOR = 8


class EndReason(IntEnum):
    """How a lease ended."""

    UNSPECIFIED = 0
    RELEASED = 1
    YIELDED = 2
    MAX_HOLD = 3
    TTL_EXPIRED = 4
    DISCONNECTED = 5
    HOLDER_DIED = 6
    REVOKED = 7
    OPERATOR = 8
    GPU_LOST = 9
    NOT_RECOVERED = 10
    CANCELLED = 11


class LeaseState(IntEnum):
    """Where a lease is in its life."""

    UNSPECIFIED = 0
    HELD = 1
    YIELDING = 2
    DETACHED = 3
    RECOVERING = 4


class WorkResult(IntEnum):
    """How work under a lease, or instead of one, turned out."""

    UNSPECIFIED = 0
    OK = 1
    FAILED = 2
    OUT_OF_MEMORY = 3
    CANCELLED = 4


class WorkDevice(IntEnum):
    """Which device did the work."""

    UNSPECIFIED = 0
    GPU = 1
    CPU = 2


class MemoryVerdict(IntEnum):
    """How what was declared compared with what was used."""

    UNSPECIFIED = 0
    WITHIN = 1
    OVER = 2
    UNDER = 3


class GpuHealth(IntEnum):
    """Whether the arbiter can see a GPU."""

    UNSPECIFIED = 0
    OK = 1
    UNMONITORED = 2
    STALE = 3
    LOST = 4


class Pressure(IntEnum):
    """Utilization pressure of a GPU."""

    UNSPECIFIED = 0
    NORMAL = 1
    HIGH = 2


class EventType(IntEnum):
    """What happened, in the audit trail."""

    UNSPECIFIED = 0
    QUEUED = 1
    GRANTED = 2
    DECLINED = 3
    FAILED = 4
    RENEWED = 5
    RESIZED = 6
    HOLD_EXCEEDED = 7
    YIELD_REQUESTED = 8
    ENDED = 9
    DETACHED = 10
    JOINED = 11
    COOLDOWN_STARTED = 12
    COOLDOWN_ENDED = 13
    MEMORY_OVERUSE = 14
    MEMORY_RECOVERED = 15
    GPU_LOST = 16
    GPU_RESTORED = 17
    DRAINED = 18
    RESUMED = 19
    CONFIG_UPDATED = 20
    STARTED = 21
    RECOVERED = 22
    STOPPING = 23
    WORK_REPORTED = 24


class ProcessId(NamedTuple):
    """A process that cannot be mistaken for a later one with the same pid."""

    pid: int
    # Field 22 of /proc/PID/stat, in clock ticks since boot.
    start_ticks: int


@dataclass(frozen=True, slots=True)
class GpuSpec:
    """A GPU as it is known from the start: from NVML, from the configuration or simulated."""

    # Stable name, such as "gpu:0"; a MIG instance is "gpu:0/1".
    key: str
    index: int
    # Device memory as NVML's total reports it.
    total_bytes: int
    # Empty when it is not known.
    uuid: str = ""
    name: str = ""
    # Whether readings are to be expected.
    monitored: bool = True
    # Memory that the driver keeps for itself.
    reserved_bytes: int = 0
    # For a MIG instance: the UUID of its GPU.
    parent_uuid: str = ""
    # For people: "nvml", "configured" or "simulated", and the driver's version.
    source: str = "nvml"
    driver_version: str = ""


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that the driver sees on a GPU."""

    process: ProcessId
    # None where the driver does not tell.
    used_bytes: int | None
    # Its parents, nearest first, as far as they were alive when it was read.
    ancestors: tuple[ProcessId, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One look at one GPU. What the GPU does not report is None."""

    # Monotonic time just before the first query, so that it never shows what came later as earlier.
    time: float
    # total - free - reserved.
    memory_used_bytes: int | None = None
    memory_free_bytes: int | None = None
    utilization_ratio: float | None = None
    memory_bandwidth_ratio: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    temperature_celsius: float | None = None
    sm_clock_hertz: int | None = None
    # None where the driver's pids cannot be told apart from here (another PID namespace).
    processes: tuple[GpuProcess, ...] | None = None


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that asks, as it declared itself; `process` only where the arbiter has proof."""

    client_id: str
    pid: int = 0
    namespace: str = ""
    pod: str = ""
    container: str = ""
    pid_namespace: int = 0
    process_start_ticks: int = 0
    # The holder's process, when the kernel or matching /proc facts vouch for it.
    process: ProcessId | None = None


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """Which GPUs a request may run on, and how much of them it wants."""

    # Keys, indices or UUIDs. Empty: any GPU.
    candidates: tuple[str, ...] = ()
    count: int = 1
    # 0: the policy decides.
    memory_bytes: int = 0
    sharing: Sharing = Sharing.UNSPECIFIED
    placement: Placement = Placement.UNSPECIFIED
    resident_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Sequence:
    """Order of requests that belong together: lower index first."""

    group: str
    index: int = 0


@dataclass(frozen=True, slots=True)
class WorkContext:
    """Who and what a lease belongs to in the caller's world; never decides anything."""

    job_id: str = ""
    session_id: str = ""
    utterance_index: int | None = None
    stage: str = ""
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class WorkReport:
    """What a holder tells about the work it did."""

    result: WorkResult = WorkResult.UNSPECIFIED
    device: WorkDevice = WorkDevice.UNSPECIFIED
    work_items: int = 0
    peak_memory_bytes: int = 0
    duration: float | None = None


@dataclass(frozen=True, slots=True)
class AcquireRequest:
    """One Acquire, checked against the table of limits, but not yet against any policy."""

    task_type: str
    holder: Holder
    # The caller's idempotency key; empty when there is none.
    request_id: str = ""
    gpu: GpuRequest = field(default_factory=GpuRequest)
    # None: the policy's, for this and the next three.
    priority: int | None = None
    busy_policy: BusyPolicy = BusyPolicy.UNSPECIFIED
    max_wait: float | None = None
    max_hold: float | None = None
    # 0: bound to the stream.
    ttl: float = 0.0
    detached: bool = False
    sequence: Sequence | None = None
    context: WorkContext = field(default_factory=WorkContext)
    # Who the arbiter took the caller for.
    principal: str = "local"
    traceparent: str = ""
    tracestate: str = ""


class Identity(NamedTuple):
    """Who a request belongs to; requests of two identities never meet."""

    principal: str
    client_id: str


class RequestKey(NamedTuple):
    """What names a request: its id, within its identity."""

    identity: Identity
    request_id: str
