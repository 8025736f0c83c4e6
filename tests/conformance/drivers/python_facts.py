"""What the Python client tells, in the words of the driver protocol.

Law: pure; the public API in, plain data out.
"""

from datetime import timedelta
from typing import Any

from gpuarbiter import ArbiterError, AsyncLease, Declined, FallbackToCpu, Lease, Queued, Released, Skipped

Facts = dict[str, Any]


def seconds_of(value: timedelta | None) -> float | None:
    """A number, for JSON."""
    return None if value is None else value.total_seconds()


def lease_facts(lease: AsyncLease | Lease) -> Facts:
    """What a lease says of itself."""
    asked = lease.yield_requested
    return {
        "lease_id": lease.lease_id,
        "fencing_token": str(lease.fencing_token),
        "request_id": lease.request_id,
        "task_type": lease.task_type,
        "gpus": [
            {"key": gpu.key, "uuid": gpu.uuid, "index": gpu.index, "committed_bytes": gpu.committed_bytes}
            for gpu in lease.gpus
        ],
        "sharing": lease.sharing,
        "priority": lease.priority,
        "detached": lease.detached,
        "unmanaged": lease.unmanaged,
        "queue_wait_seconds": seconds_of(lease.queue_wait),
        "hold_remaining_seconds": seconds_of(lease.hold_remaining),
        "ttl_remaining_seconds": seconds_of(lease.ttl_remaining),
        "yield_requested": None if asked is None else asked.reason,
        "uncertain": lease.uncertain,
        "lost": lease.lost,
        "lost_reason": lease.lost_reason,
    }


def queued_facts(queued: Queued) -> Facts:
    """Where a request stands."""
    return {
        "request_id": queued.request_id,
        "position": queued.position,
        "queue_length": queued.queue_length,
        "reason": queued.reason,
        "blockers": [each.lease_id for each in queued.blockers],
    }


def released_facts(released: Released) -> Facts:
    """How a lease ended."""
    return {
        "kind": "released",
        "reason": released.reason,
        "already_ended": released.already_ended,
        "held_seconds": seconds_of(released.held),
    }


def outcome_facts(outcome: AsyncLease | Lease | Skipped | FallbackToCpu) -> Facts:
    """What came of asking for a lease."""
    if isinstance(outcome, Declined):
        return decline_facts(outcome)
    return {"kind": "granted", **lease_facts(outcome)}


def decline_facts(decline: Declined) -> Facts:
    """Why there is no lease."""
    return {
        "kind": "fallback_cpu" if isinstance(decline, FallbackToCpu) else "skipped",
        "reason": decline.reason,
        "waited_seconds": seconds_of(decline.waited),
        "retry_after_seconds": seconds_of(decline.retry_after),
        "blockers": [each.lease_id for each in decline.blockers],
    }


def refusal_facts(error: ArbiterError) -> Facts:
    """An error of the library's."""
    return {
        "kind": "refused",
        "error": type(error).__name__,
        "reason": error.reason,
        "message": str(error),
        "fields": [each.field for each in error.violations],
        "retry_after_seconds": seconds_of(error.retry_after),
    }


def bad_input_facts(error: Exception) -> Facts:
    """What the library refuses by itself, before anything is sent."""
    return {
        "kind": "refused",
        "error": "BadInput",
        "reason": "",
        "message": str(error),
        "fields": [],
        "retry_after_seconds": None,
    }
