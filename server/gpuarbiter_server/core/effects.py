"""What the core wants done. The runtime carries effects out in their order, after they are durable.

Law: exactly one terminal effect per acquire: Declined, Failed, Ended, or Granted for a detached one.
Durations are seconds.
"""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from gpuarbiter_server.core.errors import ArbiterError
from gpuarbiter_server.core.events import Call
from gpuarbiter_server.core.model import (
    BusyPolicy,
    EndReason,
    EventType,
    Holder,
    MemoryVerdict,
    ProcessId,
    Sharing,
    WaitReason,
    WorkContext,
    WorkReport,
    YieldReason,
)
from gpuarbiter_server.core.records import Change
from gpuarbiter_server.core.views import BlockerView, LeaseView

# -- to the stream of an acquire --


@dataclass(frozen=True, slots=True)
class Queued:
    """The request waits; told again when its reason or position changes."""

    call: Call
    request_id: str
    position: int
    queue_length: int
    reason: WaitReason
    estimated_wait: float | None
    detail: str
    blockers: tuple[BlockerView, ...]


@dataclass(frozen=True, slots=True)
class Granted:
    """The lease is offered; final: nothing follows on this stream (a detached lease)."""

    call: Call
    lease: LeaseView
    final: bool
    # Whether it must not be told before what is saved with it is written: its holder is back after a restart.
    claims: bool = False


@dataclass(frozen=True, slots=True)
class Declined:
    """No GPU could be had, and the busy policy says not to fail. Terminal."""

    call: Call
    decision: BusyPolicy
    reason: WaitReason
    waited: float
    retry_after: float | None
    detail: str
    blockers: tuple[BlockerView, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """The call failed. Terminal, for every kind of call."""

    call: Call
    error: ArbiterError


@dataclass(frozen=True, slots=True)
class YieldRequested:
    """The holder is asked to stop; grace: until it is revoked, None when it is only asked."""

    call: Call
    reason: YieldReason
    grace: float | None
    detail: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The lease is over. Terminal."""

    call: Call
    reason: EndReason
    held: float
    detail: str = ""
    cause: YieldReason = YieldReason.UNSPECIFIED
    memory_verdict: MemoryVerdict = MemoryVerdict.UNSPECIFIED
    memory_peak_bytes: int | None = None


# -- answers to the other calls, each terminal --


@dataclass(frozen=True, slots=True)
class Released:
    """Answer to Release and CancelStream."""

    call: Call
    reason: EndReason
    held: float
    already_ended: bool
    memory_verdict: MemoryVerdict = MemoryVerdict.UNSPECIFIED
    memory_peak_bytes: int | None = None
    # Whether a crash that undoes it would leave a lease that lives on by a ttl, and not just for a grace period.
    lingers: bool = False


@dataclass(frozen=True, slots=True)
class PendingYield:
    """A yield request that stands."""

    reason: YieldReason
    grace: float | None
    detail: str


@dataclass(frozen=True, slots=True)
class Renewed:
    """Answer to Renew."""

    call: Call
    ttl_remaining: float | None
    hold_remaining: float | None
    pending_yield: PendingYield | None
    # As for Granted.
    claims: bool = False


@dataclass(frozen=True, slots=True)
class Resized:
    """Answer to Resize."""

    call: Call
    lease: LeaseView


@dataclass(frozen=True, slots=True)
class FenceChecked:
    """Answer to CheckFence."""

    call: Call
    current: bool
    newest_token: int


@dataclass(frozen=True, slots=True)
class Drained:
    """Answer to Drain."""

    call: Call
    leases_left: int


@dataclass(frozen=True, slots=True)
class Done:
    """Answer to calls that answer nothing: Resume, Revoke, ReportWork."""

    call: Call


class Asking(Enum):
    """What became of AskToYield."""

    # The holder is told, or will be when it comes back.
    ASKED = "asked"
    # It was asked for the same reason before; that stands, and is not said twice.
    ASKED_BEFORE = "asked before"
    NOBODY_WAITS = "nobody waits"
    # There is no such lease, or not any more.
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Asked:
    """Answer to AskToYield."""

    call: Call
    asking: Asking


# -- to the machine --


@dataclass(frozen=True, slots=True)
class Watch:
    """Tell when this process is gone."""

    process: ProcessId


@dataclass(frozen=True, slots=True)
class Unwatch:
    """Nobody cares about this process any more."""

    process: ProcessId


@dataclass(frozen=True, slots=True)
class Refresh:
    """Read these GPUs at once: a decision waits for it."""

    gpus: frozenset[str]


@dataclass(frozen=True, slots=True)
class SampleFast:
    """Tickets wait on the memory of these GPUs (and of no others): read them often."""

    gpus: frozenset[str]


# -- to the journal --


@dataclass(frozen=True, slots=True)
class Save:
    """Write this change, after all of a lower number; say JournalWritten or JournalFailed."""

    number: int
    change: Change


@dataclass(frozen=True, slots=True)
class Serving:
    """Whether leases can be granted at all; detail: why not."""

    up: bool
    detail: str = ""


# -- to the observers --


class Place(NamedTuple):
    """Where a request stood when it began to wait."""

    position: int
    # Of the longest queue among those of its GPUs.
    queue_length: int
    reason: WaitReason
    # The leases in its way.
    blockers: tuple[str, ...]


class GrantedMemory(NamedTuple):
    """Bytes on one GPU: what a lease declared and what is committed to it there, and what was admissible before."""

    declared: int
    # The most, and the least, among its GPUs.
    committed: int
    admissible: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """Something happened, for history, metrics, traces and logs. Nothing depends on who reads it."""

    type: EventType
    lease_id: str = ""
    request_id: str = ""
    task_type: str = ""
    holder: Holder | None = None
    gpus: tuple[str, ...] = ()
    fencing_token: int = 0
    detail: str = ""
    # Where they apply: how long the request waited, how long the lease was held, and why.
    waited: float | None = None
    held: float | None = None
    end_reason: EndReason = EndReason.UNSPECIFIED
    yield_reason: YieldReason = YieldReason.UNSPECIFIED
    # granted, skipped, fallback_cpu, timeout, queue_full, no_memory, cancelled, error.
    outcome: str = ""
    report: WorkReport | None = None
    # With ENDED: the highest memory that was seen of the lease on any of its GPUs.
    memory_peak_bytes: int | None = None
    # With QUEUED, and with GRANTED.
    place: Place | None = None
    memory: GrantedMemory | None = None
    # Of a request and its lease: what it goes by, the number of its arrival in this life, and the trace of its caller.
    priority: int = 0
    sharing: Sharing = Sharing.UNSPECIFIED
    number: int = 0
    context: WorkContext | None = None
    traceparent: str = ""
    tracestate: str = ""


Effect = (
    Queued
    | Granted
    | Declined
    | Failed
    | YieldRequested
    | Ended
    | Released
    | Renewed
    | Resized
    | FenceChecked
    | Drained
    | Done
    | Asked
    | Watch
    | Unwatch
    | Refresh
    | SampleFast
    | Save
    | Serving
    | Recorded
)
