"""What must outlive the arbiter: the durable form of its state, and the changes to it.

Law: replaying the changes in their order gives the state. Times are monotonic seconds that count from
the start of the machine; they mean nothing after it was started again. Waiting requests are not kept:
their clients ask again at once.
"""

from dataclasses import dataclass

from gpuarbiter_server.core.model import (
    AcquireRequest,
    EndReason,
    MemoryVerdict,
    ProcessId,
    RequestKey,
    Sharing,
    YieldReason,
)
from gpuarbiter_server.core.terms import Terms


@dataclass(frozen=True, slots=True)
class EndedRecord:
    """What is still known of a lease, or of a named request that never became one."""

    # Empty: it never was a lease.
    lease_id: str
    key: RequestKey
    token: int
    reason: EndReason
    held: float
    ended_at: float
    detail: str = ""
    cause: YieldReason = YieldReason.UNSPECIFIED
    verdict: MemoryVerdict = MemoryVerdict.UNSPECIFIED
    peak: int | None = None


@dataclass(frozen=True, slots=True)
class SavedYield:
    """A yield request that stands."""

    reason: YieldReason
    detail: str
    # When the lease is ended if it is still held; None: it is only asked.
    until: float | None
    end_reason: EndReason
    asked: bool


@dataclass(frozen=True, slots=True)
class SavedShare:
    """What a lease has of one GPU, in bytes."""

    gpu: str
    # Empty when it is not known.
    uuid: str
    declared: int
    committed: int
    peak: int | None
    # As they were at the grant: this holder's memory, all use, all processes.
    resident: int
    used_before: int
    baseline: tuple[ProcessId, ...]


@dataclass(frozen=True, slots=True)
class SavedLease:
    """A live lease."""

    lease_id: str
    token: int
    key: RequestKey
    # Whether the caller chose the request id.
    named: bool
    request: AcquireRequest
    terms: Terms
    sharing: Sharing
    enqueued_at: float
    granted_at: float
    # None: without limit.
    hold_until: float | None
    # Whether the watchdog has acted on it already.
    hold_passed: bool
    yields: tuple[SavedYield, ...]
    shares: tuple[SavedShare, ...]
    # Since a restart after which nothing was heard of its holder: when it ends. None: it was heard of.
    recover_until: float | None


@dataclass(frozen=True, slots=True)
class SavedCooldown:
    """A cooldown that runs on a GPU."""

    lease_id: str
    since: float
    until: float
    baseline: tuple[ProcessId, ...]
    holder_known: bool
    family: tuple[ProcessId, ...]


@dataclass(frozen=True, slots=True)
class SavedGpu:
    """What is kept of a GPU beside its leases."""

    key: str
    uuid: str
    newest_token: int
    # None: not cordoned.
    cordon: str | None
    cooldown: SavedCooldown | None

    @property
    def name(self) -> str:
        """What it is known by from start to start: its UUID, as keys move when a GPU is missing; else its key."""
        return self.uuid or self.key


@dataclass(frozen=True, slots=True)
class Saved:
    """The whole of it. Ended records stand in the order in which they ended."""

    leases: tuple[SavedLease, ...] = ()
    ended: tuple[EndedRecord, ...] = ()
    gpus: tuple[SavedGpu, ...] = ()


# -- the changes --


@dataclass(frozen=True, slots=True)
class LeaseSaved:
    """A lease was granted, or is no longer what was saved of it."""

    lease: SavedLease


@dataclass(frozen=True, slots=True)
class LeaseDropped:
    """A lease was taken back before its holder could know of it: it never was."""

    lease_id: str


@dataclass(frozen=True, slots=True)
class Closed:
    """A lease, or a named request that never became one, is over."""

    record: EndedRecord


@dataclass(frozen=True, slots=True)
class GpuSaved:
    """A GPU is no longer what was saved of it."""

    gpu: SavedGpu


@dataclass(frozen=True, slots=True)
class TokensReserved:
    """Fencing tokens up to this one may be granted without another word."""

    until: int


@dataclass(frozen=True, slots=True)
class Rewritten:
    """The whole state: what was there before counts no more."""

    saved: Saved
    tokens_until: int


Change = LeaseSaved | LeaseDropped | Closed | GpuSaved | TokensReserved | Rewritten
