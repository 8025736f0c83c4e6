# ruff: noqa: N818 -- these names are what callers catch: `except WaitTimeout` reads as it is meant
"""What can go wrong, as one tree under ArbiterError.

Law: one class for each ErrorReason of the contract, found by its name; a reason that this library does
not know yet is an ArbiterError that still carries it. Nothing here imports gRPC.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Violation:
    """One field of a request that the arbiter refused, and why."""

    field: str
    description: str


class ArbiterError(Exception):
    """Base of everything that this library raises about the arbiter.

    Attributes:
        message: for people.
        reason: the name of the contract's ErrorReason, such as "WAIT_TIMEOUT"; empty when there is none.
        code: the name of the gRPC status, such as "UNAVAILABLE"; empty when no call failed.
        metadata: the facts behind the reason: the holder in the way, the position, the limit.
        retry_after: when to try again, where the arbiter says so.
        violations: the refused fields of an invalid request.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        code: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after: timedelta | None = None,
        violations: Sequence[Violation] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.code = code
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after
        self.violations = tuple(violations)

    def __str__(self) -> str:
        fields = "; ".join(f"{each.field}: {each.description}" for each in self.violations)
        return f"{self.message} ({fields})" if fields else self.message

    @property
    def transient(self) -> bool:
        """The same call may well succeed a little later: the arbiter was out of reach, or cannot grant just now."""
        return self.code in _TRANSIENT_CODES


# Without a reason of the contract's, UNKNOWN, INTERNAL and CANCELLED are how a connection that is cut in
# the middle of an answer shows in gRPC.
_TRANSIENT_CODES = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED"})
TRANSPORT_CODES = _TRANSIENT_CODES | {"UNKNOWN", "INTERNAL", "CANCELLED"}


class ArbiterUnavailable(ArbiterError):
    """The arbiter did not answer: not running, not reachable, or too slow. Nothing is known of the request."""

    @property
    def transient(self) -> bool:
        """Always: a later call may find the arbiter there."""
        return True


class ShuttingDown(ArbiterUnavailable):
    """The arbiter is shutting down and takes no new requests."""


class InvalidRequest(ArbiterError):
    """A field of the request is not allowed; `violations` names each."""


class UnknownGpu(ArbiterError):
    """No such GPU on this node."""


class UnknownLease(ArbiterError):
    """No such lease, and none that ended lately."""


class Infeasible(ArbiterError):
    """The request would not fit on an empty GPU: waiting does not help."""


class QueueFull(ArbiterError):
    """The queue is at its limit."""


class ClientLimit(ArbiterError):
    """This client is at its own limit of waiting requests or leases."""


class WaitTimeout(ArbiterError):
    """max_wait passed without a grant."""


class StaleToken(ArbiterError):
    """The fencing token is not the lease's."""


class RequestIdConflict(ArbiterError):
    """The request_id was used with other parameters."""


class NotPermitted(ArbiterError):
    """The lease belongs to another identity, or the call needs the admin role."""


class Unauthenticated(ArbiterError):
    """No credentials, or wrong ones."""


class JournalUnavailable(ArbiterError):
    """The arbiter cannot write its journal, so that it grants nothing for now."""


class GpuUnavailable(ArbiterError):
    """Every candidate GPU is lost."""


class ResizeRefused(ArbiterError):
    """What the resize asks for would not be admitted now; the lease is as it was."""


class Superseded(ArbiterError):
    """Another stream joined this request by its request_id, and took it over."""


class Cancelled(ArbiterError):
    """The request was taken back while it waited."""


class LeaseLost(ArbiterError):
    """The lease is no longer held, and this process must not use the GPU any longer.

    `reason` is the contract's EndReason without its prefix ("REVOKED", "TTL_EXPIRED"), "SUPERSEDED", or
    an ErrorReason; "RELEASED" when the process itself gave the lease back.
    """


class LeaseEnded(LeaseLost):
    """The lease was over before this call: it can be neither renewed nor resized."""


BY_REASON: Mapping[str, type[ArbiterError]] = {
    "INVALID_REQUEST": InvalidRequest,
    "UNKNOWN_GPU": UnknownGpu,
    "UNKNOWN_LEASE": UnknownLease,
    "INFEASIBLE": Infeasible,
    "QUEUE_FULL": QueueFull,
    "CLIENT_LIMIT": ClientLimit,
    "WAIT_TIMEOUT": WaitTimeout,
    "SHUTDOWN": ShuttingDown,
    "STALE_TOKEN": StaleToken,
    "REQUEST_ID_CONFLICT": RequestIdConflict,
    "NOT_PERMITTED": NotPermitted,
    "UNAUTHENTICATED": Unauthenticated,
    "JOURNAL_UNAVAILABLE": JournalUnavailable,
    "GPU_UNAVAILABLE": GpuUnavailable,
    "LEASE_ENDED": LeaseEnded,
    "RESIZE_REFUSED": ResizeRefused,
    "SUPERSEDED": Superseded,
    "CANCELLED": Cancelled,
}
