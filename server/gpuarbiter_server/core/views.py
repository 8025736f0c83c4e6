"""What the core shows of itself: frozen copies that outlive the next event.

Times that end in `_at` are the core's monotonic seconds; whoever shows them to people converts them.
"""

from dataclasses import dataclass

from gpuarbiter_server.core.model import (
    GpuHealth,
    GpuReading,
    GpuSpec,
    Holder,
    LeaseState,
    ProcessId,
    Sharing,
    WaitReason,
    WorkContext,
)


@dataclass(frozen=True, slots=True)
class BlockerView:
    """A lease in the way of a request."""

    lease_id: str
    task_type: str
    client_id: str
    gpu: str
    held: float


@dataclass(frozen=True, slots=True)
class GrantView:
    """One GPU of a lease. observed: None where nothing can be attributed."""

    spec: GpuSpec
    declared_bytes: int
    committed_bytes: int
    observed_bytes: int | None
    observed_peak_bytes: int | None


@dataclass(frozen=True, slots=True)
class LeaseView:
    """A lease as it stood when the view was taken."""

    lease_id: str
    fencing_token: int
    request_id: str
    task_type: str
    holder: Holder
    principal: str
    gpus: tuple[GrantView, ...]
    sharing: Sharing
    priority: int
    state: LeaseState
    queue_wait: float
    granted_at: float
    # None: without limit.
    hold_remaining: float | None
    # None: bound to the stream.
    ttl_remaining: float | None
    ttl: float
    context: WorkContext


@dataclass(frozen=True, slots=True)
class TicketView:
    """A waiting request."""

    request_id: str
    task_type: str
    holder: Holder
    principal: str
    priority: int
    position: int
    reason: WaitReason
    enqueued_at: float
    # None: waits without limit.
    wait_deadline_at: float | None
    memory_bytes: int
    sharing: Sharing
    context: WorkContext
    candidates: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class StatsView:
    """Over the last hundred leases of a GPU, and counts since the start. None: no lease yet."""

    queue_wait_p50: float | None
    queue_wait_p95: float | None
    hold_p50: float | None
    hold_p95: float | None
    granted: int
    declined: int
    timed_out: int
    watchdog: int


@dataclass(frozen=True, slots=True)
class GpuView:
    """A GPU with its admission ledger."""

    spec: GpuSpec
    health: GpuHealth
    cordoned: bool
    headroom_bytes: int
    committed_bytes: int
    unleased_bytes: int
    admissible_bytes: int
    reading: GpuReading | None
    lease_ids: tuple[str, ...]
    queue_length: int
    queue_limit: int
    stats: StatsView
    # None: no cooldown runs.
    cooldown_remaining: float | None
    # The lease that each process on the GPU belongs to.
    owners: tuple[tuple[ProcessId, str], ...]
    # Why it is out of service: what the driver or the operator said; empty while it is in service.
    out_of_service: str


@dataclass(frozen=True, slots=True)
class SnapshotView:
    """The whole state, at one moment."""

    revision: int
    taken_at: float
    nvml_up: bool
    # Whether leases of before a restart still wait for their holders.
    recovering: bool
    draining: bool
    gpus: tuple[GpuView, ...]
    leases: tuple[LeaseView, ...]
    queue: tuple[TicketView, ...]
    queue_length: int
