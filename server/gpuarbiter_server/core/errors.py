"""The error tree: every refusal of the core, with a reason for programs and a message for people.

Law: an error is raised before anything is changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum


class ErrorReason(IntEnum):
    """Why a call failed; values equal those of the contract."""

    UNSPECIFIED = 0
    INVALID_REQUEST = 1
    UNKNOWN_GPU = 2
    UNKNOWN_LEASE = 3
    INFEASIBLE = 4
    QUEUE_FULL = 5
    CLIENT_LIMIT = 6
    WAIT_TIMEOUT = 7
    SHUTDOWN = 8
    STALE_TOKEN = 9
    REQUEST_ID_CONFLICT = 10
    NOT_PERMITTED = 11
    UNAUTHENTICATED = 12
    JOURNAL_UNAVAILABLE = 13
    GPU_UNAVAILABLE = 14
    LEASE_ENDED = 15
    RESIZE_REFUSED = 16
    SUPERSEDED = 17
    CANCELLED = 18


@dataclass(frozen=True, slots=True)
class Violation:
    """A field that is not as it must be; the path is dotted, as in the contract."""

    field: str
    description: str


class ArbiterError(Exception):
    """A refusal.

    metadata: facts for programs, as text. retry_after: seconds, where trying again makes sense.
    """

    def __init__(
        self,
        reason: ErrorReason,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        violations: tuple[Violation, ...] = (),
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after
        self.violations = violations


def invalid(*violations: Violation) -> ArbiterError:
    """The error for fields out of their limits."""
    message = "; ".join(f"{v.field}: {v.description}" for v in violations)
    return ArbiterError(ErrorReason.INVALID_REQUEST, message, violations=violations)


def unknown_gpu(name: str, known: tuple[str, ...]) -> ArbiterError:
    """The error for a GPU that this arbiter does not have."""
    return ArbiterError(
        ErrorReason.UNKNOWN_GPU,
        f"no GPU is named {name!r}; there are {', '.join(known)}",
        metadata={"gpu": name, "known": ",".join(known[:16])},
    )


def unknown_lease(name: str) -> ArbiterError:
    """The error for a lease or request that is not there, and did not end lately either."""
    return ArbiterError(ErrorReason.UNKNOWN_LEASE, f"no lease or request is named {name!r}", metadata={"name": name})
