"""What callers hand in and get back, as frozen data.

Law: enum values are the contract's names without their prefix ("GPU_BUSY"), durations are timedeltas,
memory is in bytes. A value that this library does not know yet comes as "UNRECOGNIZED_17".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from gpuarbiter import _clock
from gpuarbiter._units import Duration, Size

BusyPolicy = Literal["WAIT", "SKIP", "FALLBACK_CPU"]
Placement = Literal["LEAST_LOADED", "BEST_FIT", "ROUND_ROBIN"]
WorkResult = Literal["OK", "FAILED", "OUT_OF_MEMORY", "CANCELLED"]
WorkDevice = Literal["GPU", "CPU"]


@dataclass(frozen=True, slots=True)
class GrantedGpu:
    """One GPU of a lease."""

    key: str
    uuid: str
    index: int
    declared_bytes: int
    committed_bytes: int


@dataclass(frozen=True, slots=True)
class YieldRequest:
    """The arbiter asks for the GPU back; it stands until the lease ends.

    Attributes:
        reason: the contract's YieldReason, such as "PREEMPTED".
        detail: for people.
        grace: how long from its arrival until the lease is revoked; None when it is only a request.
    """

    reason: str
    detail: str = ""
    grace: timedelta | None = None
    received_at: float = field(default=0.0, compare=False, repr=False)

    @property
    def deadline(self) -> float | None:
        """When the lease is revoked, on the clock of `gpuarbiter.now()`; None when it is only a request."""
        return None if self.grace is None else self.received_at + self.grace.total_seconds()

    @property
    def remaining(self) -> timedelta | None:
        """Time left until the deadline, never below zero; None when it is only a request."""
        return None if self.deadline is None else timedelta(seconds=max(0.0, self.deadline - _clock.now()))


@dataclass(frozen=True, slots=True)
class Blocker:
    """A lease in the way of a request."""

    lease_id: str
    task_type: str
    client_id: str
    gpu: str
    held: timedelta


@dataclass(frozen=True, slots=True)
class Queued:
    """Where a request stands in the queue: `position` 1 is the head."""

    request_id: str
    position: int
    queue_length: int
    reason: str
    detail: str = ""
    estimated_wait: timedelta | None = None
    blockers: tuple[Blocker, ...] = ()


@dataclass(frozen=True, slots=True)
class Released:
    """How a lease ended.

    Attributes:
        reason: the contract's EndReason, such as "RELEASED"; empty when the arbiter no longer knows.
        held: how long it was held.
        already_ended: it was over before it was released.
        memory_verdict: "WITHIN", "OVER" or "UNDER" the declaration; empty when that is not known.
        memory_peak_bytes: the observed peak; None when it is not known.
    """

    reason: str
    held: timedelta
    already_ended: bool
    memory_verdict: str = ""
    memory_peak_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Fence:
    """Whether a fencing token is the one of a live lease on a GPU, and the newest token granted there."""

    current: bool
    newest_token: int


@dataclass(frozen=True, slots=True)
class WorkContext:
    """Who and what a lease belongs to in the caller's world; goes to logs and traces."""

    job_id: str = ""
    session_id: str = ""
    utterance_index: int | None = None
    stage: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkReport:
    """What a holder tells about the work it did."""

    result: WorkResult = "OK"
    device: WorkDevice = "GPU"
    work_items: int = 0
    peak_memory: Size = 0
    duration: Duration | None = None
