"""Between Python values and the messages of the contract.

Law: pure; a value that cannot be said in the contract is a ValueError or TypeError here, before anything
is sent. An optional field that the caller left out stays unset: the arbiter's policy decides it.
"""

import uuid
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration as DurationMessage

from gpuarbiter import _outcomes, _tracing, _values
from gpuarbiter._options import RequestOptions
from gpuarbiter._units import Duration, parse_bytes, parse_duration
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import lease_pb2, snapshot_pb2


def acquire_request(task_type: str, options: RequestOptions) -> pb.AcquireRequest:
    """The request for `lease` and `acquire`, without a holder; a request_id is made up where the caller gives none."""
    ttl = options.get("ttl")
    detached = options.get("detached", False)
    if detached and not ttl:
        raise ValueError("detached needs a ttl: nothing else would end the lease")
    sequence = options.get("sequence")
    context = options.get("context")
    trace = _tracing.current()
    return pb.AcquireRequest(
        request_id=options.get("request_id") or str(uuid.uuid4()),
        task_type=task_type,
        gpu=_gpu_request(options),
        priority=options.get("priority"),
        busy_policy=enum_number(lease_pb2.BusyPolicy, options.get("busy_policy")),
        max_wait=duration(options.get("max_wait")),
        max_hold=duration(options.get("max_hold")),
        ttl=duration(ttl),
        detached=detached,
        sequence=None if sequence is None else lease_pb2.Sequence(group=sequence[0], index=sequence[1]),
        context=None if context is None else work_context(context),
        traceparent=trace.traceparent,
        tracestate=trace.tracestate,
    )


def _gpu_request(options: RequestOptions) -> lease_pb2.GpuRequest:
    gpus: Iterable[str] | str = options.get("gpus", ())
    return lease_pb2.GpuRequest(
        candidates=[gpus] if isinstance(gpus, str) else list(gpus),
        count=options.get("count", 1),
        memory_bytes=parse_bytes(options.get("memory") or 0),
        sharing=sharing(options.get("shared")),
        placement=enum_number(lease_pb2.Placement, options.get("placement")),
        resident_bytes=parse_bytes(options.get("resident") or 0),
    )


def sharing(shared: bool | None) -> lease_pb2.Sharing:
    """Shared, exclusive, or for None whatever the policy (or the lease) says."""
    if shared is None:
        return lease_pb2.SHARING_UNSPECIFIED
    # "no" would be true.
    if not isinstance(shared, bool):
        raise TypeError(f"shared is {shared!r}; write True, False or None")
    return lease_pb2.SHARING_SHARED if shared else lease_pb2.SHARING_EXCLUSIVE


def duration(value: Duration | None) -> DurationMessage | None:
    """A Duration message; None stays None, which leaves the field unset."""
    if value is None:
        return None
    message = DurationMessage()
    message.FromTimedelta(parse_duration(value))
    return message


def work_context(context: _values.WorkContext) -> lease_pb2.WorkContext:
    """The WorkContext message."""
    return lease_pb2.WorkContext(
        job_id=context.job_id,
        session_id=context.session_id,
        utterance_index=context.utterance_index,
        stage=context.stage,
        attributes=context.attributes,
    )


def work_report(report: _values.WorkReport) -> lease_pb2.WorkReport:
    """The WorkReport message."""
    return lease_pb2.WorkReport(
        result=enum_number(lease_pb2.WorkResult, report.result),
        device=enum_number(lease_pb2.WorkDevice, report.device),
        work_items=report.work_items,
        peak_memory_bytes=parse_bytes(report.peak_memory),
        duration=duration(report.duration),
    )


def _prefix(enum: Any) -> str:
    zero: str = enum.Name(0)
    return zero.removesuffix("UNSPECIFIED")


def enum_number(enum: Any, name: str | None) -> Any:
    """The number behind a name without its prefix ("SKIP"); None is the unspecified one."""
    if name is None:
        return 0
    prefix = _prefix(enum)
    try:
        return enum.Value(prefix + name.upper())
    except ValueError:
        allowed = ", ".join(each.removeprefix(prefix) for each in enum.keys()[1:])
        raise ValueError(f"{name!r} is not allowed; write one of {allowed}") from None


def enum_name(enum: Any, number: int) -> str:
    """The name without its prefix; empty for the unspecified one."""
    if number == 0:
        return ""
    try:
        name: str = enum.Name(number)
    except ValueError:  # from an arbiter newer than this library
        return f"UNRECOGNIZED_{number}"
    return name.removeprefix(_prefix(enum))


def optional_timedelta(message: Any, field: str) -> timedelta | None:
    """A Duration field as a timedelta; None when it is not set."""
    value: timedelta | None = getattr(message, field).ToTimedelta() if message.HasField(field) else None
    return value


def blockers(messages: Iterable[lease_pb2.Blocker]) -> tuple[_values.Blocker, ...]:
    """The leases in the way."""
    return tuple(
        _values.Blocker(each.lease_id, each.task_type, each.client_id, each.gpu, each.held.ToTimedelta())
        for each in messages
    )


def queued(message: pb.Queued) -> _values.Queued:
    """A place in the queue."""
    return _values.Queued(
        request_id=message.request_id,
        position=message.position,
        queue_length=message.queue_length,
        reason=enum_name(lease_pb2.WaitReason, message.reason),
        detail=message.detail,
        estimated_wait=optional_timedelta(message, "estimated_wait"),
        blockers=blockers(message.blockers),
    )


def declined(message: pb.Declined) -> _outcomes.Skipped | _outcomes.FallbackToCpu:
    """The decline: to the CPU when the arbiter says so, otherwise a skip."""
    to_cpu = message.decision == lease_pb2.BUSY_POLICY_FALLBACK_CPU
    outcome = _outcomes.FallbackToCpu if to_cpu else _outcomes.Skipped
    return outcome(
        message.detail,
        reason=enum_name(lease_pb2.WaitReason, message.reason),
        waited=message.waited.ToTimedelta(),
        retry_after=optional_timedelta(message, "retry_after"),
        blockers=blockers(message.blockers),
    )


def yield_request(message: pb.YieldRequested, received_at: float) -> _values.YieldRequest:
    """A yield request that arrived at `received_at`."""
    return _values.YieldRequest(
        reason=enum_name(lease_pb2.YieldReason, message.reason),
        detail=message.detail,
        grace=optional_timedelta(message, "grace"),
        received_at=received_at,
    )


def released(message: pb.Ended | pb.ReleaseResponse) -> _values.Released:
    """How a lease ended, from either message that says so; an Ended came before any release."""
    return _values.Released(
        reason=enum_name(lease_pb2.EndReason, message.reason),
        held=message.held.ToTimedelta(),
        already_ended=isinstance(message, pb.Ended) or message.already_ended,
        memory_verdict=enum_name(lease_pb2.MemoryVerdict, message.memory_verdict),
        memory_peak_bytes=message.memory_peak_bytes if message.HasField("memory_peak_bytes") else None,
    )


def granted_gpus(lease: lease_pb2.Lease) -> tuple[_values.GrantedGpu, ...]:
    """The GPUs of a lease, in the order of its visible devices."""
    return tuple(
        _values.GrantedGpu(each.key, each.uuid, each.index, each.declared_bytes, each.committed_bytes)
        for each in lease.gpus
    )


def marks_of(snapshot: snapshot_pb2.ArbiterSnapshot) -> list[str]:
    """What is out of the ordinary with an arbiter, in a word or two each."""
    marks = {"draining": snapshot.draining, "recovering": snapshot.recovering, "no NVML": not snapshot.nvml_up}
    return [mark for mark, on in marks.items() if on]
