"""What stands in a span: attributes of a request, a lease and its work, and what counts as an error.

Names of others are those of the OpenTelemetry semantic conventions: `session.id`, `process.pid`, `hw.*`, `k8s.*`,
`error.type`.
"""

from collections.abc import Mapping

from opentelemetry.util.types import AttributeValue

from gpuarbiter_server.core.effects import Place, Recorded
from gpuarbiter_server.core.model import EndReason, Holder, WorkContext, WorkResult

Attributes = dict[str, AttributeValue]

_BAD_ENDS = frozenset(
    {
        EndReason.MAX_HOLD,
        EndReason.TTL_EXPIRED,
        EndReason.DISCONNECTED,
        EndReason.HOLDER_DIED,
        EndReason.NOT_RECOVERED,
        EndReason.REVOKED,
        EndReason.GPU_LOST,
    }
)
# What an integer of OTLP has room for.
_LARGEST = 2**63 - 1
_NO_ERRORS = frozenset({"granted", "skipped", "fallback_cpu", "cancelled"})


def of_acquire(recorded: Recorded, place: Place | None, uuids: Mapping[str, str]) -> Attributes:
    """Of a request that is decided; place: where it began to wait, None where it did not."""
    attributes = _of_request(recorded, uuids)
    attributes["gpu_arbiter.lease.outcome"] = recorded.outcome
    if place is not None:
        attributes["gpu_arbiter.queue.position"] = place.position
        attributes["gpu_arbiter.queue.depth"] = place.queue_length
        attributes["gpu_arbiter.queue.reason"] = place.reason.name.lower()
    if recorded.memory is not None:
        attributes["gpu_arbiter.memory.declared_bytes"] = recorded.memory.declared
        attributes["gpu_arbiter.memory.committed_bytes"] = recorded.memory.committed
        attributes["gpu_arbiter.memory.admissible_at_grant_bytes"] = recorded.memory.admissible
    return attributes


def of_hold(recorded: Recorded, uuids: Mapping[str, str]) -> Attributes:
    """Of a lease that is over."""
    attributes = _of_request(recorded, uuids)
    attributes["gpu_arbiter.lease.end_reason"] = recorded.end_reason.name.lower()
    if recorded.memory_peak_bytes is not None:
        attributes["gpu_arbiter.memory.peak_bytes"] = recorded.memory_peak_bytes
    report = recorded.report
    if report is not None:
        attributes["gpu_arbiter.work.items"] = report.work_items
        attributes["gpu_arbiter.work.result"] = report.result.name.lower()
        attributes["gpu_arbiter.work.device"] = report.device.name.lower()
    return attributes


def of_event(recorded: Recorded) -> Attributes:
    """Of something that happened to a lease while it was held."""
    attributes: Attributes = {"detail": recorded.detail} if recorded.detail else {}
    if recorded.yield_reason:
        attributes["reason"] = recorded.yield_reason.name.lower()
    return attributes


def of_gpus(recorded: Recorded, uuids: Mapping[str, str]) -> Attributes:
    """Which GPUs it is about: their UUIDs, or their keys where they have none."""
    ids = [uuids.get(gpu) or gpu for gpu in recorded.gpus]
    if not ids:
        return {}
    return {"hw.type": "gpu", "hw.id": ids[0] if len(ids) == 1 else ids}


def refusal(recorded: Recorded) -> tuple[str, str] | None:
    """The kind and message of the error that a request came to; a decline that was asked for is none."""
    return None if recorded.outcome in _NO_ERRORS else (recorded.outcome, recorded.detail)


def bad_end(recorded: Recorded) -> tuple[str, str] | None:
    """The kind and message of what went wrong with a lease or its work; None: nothing."""
    if recorded.end_reason in _BAD_ENDS:
        return recorded.end_reason.name.lower(), recorded.detail
    result = recorded.report.result if recorded.report else WorkResult.OK
    if result in {WorkResult.FAILED, WorkResult.OUT_OF_MEMORY}:
        return result.name.lower(), "the holder told of it"
    return None


def _of_request(recorded: Recorded, uuids: Mapping[str, str]) -> Attributes:
    attributes: Attributes = {
        "gpu_arbiter.lease.task": recorded.task_type,
        "gpu_arbiter.lease.priority": recorded.priority,
        "gpu_arbiter.lease.sharing": recorded.sharing.name.lower(),
        "gpu_arbiter.request.id": recorded.request_id,
    }
    if recorded.lease_id:
        attributes["gpu_arbiter.lease.id"] = recorded.lease_id
        attributes["gpu_arbiter.lease.fencing_token"] = recorded.fencing_token
    return attributes | of_gpus(recorded, uuids) | _of_holder(recorded.holder) | _of_context(recorded.context)


def _of_holder(holder: Holder | None) -> Attributes:
    if holder is None:
        return {}
    attributes: Attributes = {"gpu_arbiter.client.id": holder.client_id}
    if holder.process is not None:
        attributes["process.pid"] = holder.process.pid
    for name, value in (("k8s.namespace.name", holder.namespace), ("k8s.pod.name", holder.pod)):
        if value:
            attributes[name] = value
    return attributes


def _of_context(context: WorkContext | None) -> Attributes:
    if context is None:
        return {}
    named = (("gpu_arbiter.context.job_id", context.job_id), ("session.id", context.session_id))
    attributes: Attributes = {name: value for name, value in named if value}
    if context.stage:
        attributes["gpu_arbiter.context.stage"] = context.stage
    if context.utterance_index is not None:
        index = context.utterance_index
        attributes["gpu_arbiter.context.utterance_index"] = index if index <= _LARGEST else str(index)
    # What the contract has a field for is not replaced by what a client calls the same.
    return {f"gpu_arbiter.context.{key}": value for key, value in context.attributes} | attributes
