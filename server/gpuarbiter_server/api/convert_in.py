"""Checked messages of the contract as data of the core."""

from collections.abc import Callable
from typing import Any

from gpuarbiter.v1 import gpu_arbiter_pb2, lease_pb2
from gpuarbiter_server.api.trace_context import NOTHING, TraceContext, trace_context
from gpuarbiter_server.core.model import (
    AcquireRequest,
    BusyPolicy,
    GpuRequest,
    Holder,
    Placement,
    ProcessId,
    Sequence,
    Sharing,
    WorkContext,
    WorkDevice,
    WorkReport,
    WorkResult,
)

# The holder's process where the arbiter has proof of it: by attestation token, or by matching /proc facts.
Prove = Callable[[Holder, str], ProcessId | None]

_NANOS = 1_000_000_000


def seconds(duration: Any) -> float:
    """A Duration in seconds."""
    total: float = duration.seconds + duration.nanos / _NANOS
    return total


def optional_seconds(message: Any, name: str) -> float | None:
    """A Duration field in seconds; None when it is not set."""
    return seconds(getattr(message, name)) if message.HasField(name) else None


def holder(message: lease_pb2.Holder, prove: Prove) -> Holder:
    """Who asks, with proof of its process where there is one."""
    declared = Holder(
        client_id=message.client_id,
        pid=message.pid,
        namespace=message.namespace,
        pod=message.pod,
        container=message.container,
        pid_namespace=message.pid_namespace,
        process_start_ticks=message.process_start_ticks,
    )
    if not message.pid and not message.attestation:
        return declared
    process = prove(declared, message.attestation)
    return declared if process is None else _proved(declared, process)


def _proved(declared: Holder, process: ProcessId) -> Holder:
    """The same holder, vouched for."""
    return Holder(
        declared.client_id,
        declared.pid,
        declared.namespace,
        declared.pod,
        declared.container,
        declared.pid_namespace,
        declared.process_start_ticks,
        process,
    )


def acquire_request(
    message: gpu_arbiter_pb2.AcquireRequest, who: Holder, principal: str, trace: TraceContext = NOTHING
) -> AcquireRequest:
    """An Acquire; `who` is its holder, or the session's; trace: what its call's metadata says."""
    if message.traceparent:
        trace = trace_context(message.traceparent, message.tracestate)
    return AcquireRequest(
        task_type=message.task_type,
        holder=who,
        request_id=message.request_id,
        gpu=_gpu_request(message.gpu),
        priority=message.priority if message.HasField("priority") else None,
        busy_policy=BusyPolicy(message.busy_policy),
        max_wait=optional_seconds(message, "max_wait"),
        max_hold=optional_seconds(message, "max_hold"),
        ttl=seconds(message.ttl) if message.HasField("ttl") else 0.0,
        detached=message.detached,
        sequence=Sequence(message.sequence.group, message.sequence.index) if message.HasField("sequence") else None,
        context=work_context(message.context) if message.HasField("context") else _NO_CONTEXT,
        principal=principal,
        traceparent=trace.traceparent,
        tracestate=trace.tracestate,
    )


def work_context(message: lease_pb2.WorkContext) -> WorkContext:
    """Who and what the work belongs to."""
    return WorkContext(
        job_id=message.job_id,
        session_id=message.session_id,
        utterance_index=message.utterance_index if message.HasField("utterance_index") else None,
        stage=message.stage,
        attributes=tuple(sorted(message.attributes.items())),
    )


def work_report(message: lease_pb2.WorkReport) -> WorkReport:
    """What a holder tells of its work."""
    return WorkReport(
        result=WorkResult(message.result),
        device=WorkDevice(message.device),
        work_items=message.work_items,
        peak_memory_bytes=message.peak_memory_bytes,
        duration=optional_seconds(message, "duration"),
    )


def _gpu_request(message: lease_pb2.GpuRequest) -> GpuRequest:
    return GpuRequest(
        candidates=tuple(message.candidates),
        count=message.count or 1,
        memory_bytes=message.memory_bytes,
        sharing=Sharing(message.sharing),
        placement=Placement(message.placement),
        resident_bytes=message.resident_bytes,
    )


_NO_CONTEXT = WorkContext()
