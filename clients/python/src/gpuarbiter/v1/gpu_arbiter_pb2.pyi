import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from gpuarbiter.v1 import error_pb2 as _error_pb2
from gpuarbiter.v1 import lease_pb2 as _lease_pb2
from gpuarbiter.v1 import snapshot_pb2 as _snapshot_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AcquireRequest(_message.Message):
    __slots__ = ("request_id", "task_type", "holder", "gpu", "priority", "busy_policy", "max_wait", "max_hold", "ttl", "detached", "sequence", "context", "traceparent", "tracestate")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_TYPE_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    GPU_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    BUSY_POLICY_FIELD_NUMBER: _ClassVar[int]
    MAX_WAIT_FIELD_NUMBER: _ClassVar[int]
    MAX_HOLD_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    DETACHED_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    task_type: str
    holder: _lease_pb2.Holder
    gpu: _lease_pb2.GpuRequest
    priority: int
    busy_policy: _lease_pb2.BusyPolicy
    max_wait: _duration_pb2.Duration
    max_hold: _duration_pb2.Duration
    ttl: _duration_pb2.Duration
    detached: bool
    sequence: _lease_pb2.Sequence
    context: _lease_pb2.WorkContext
    traceparent: str
    tracestate: str
    def __init__(self, request_id: _Optional[str] = ..., task_type: _Optional[str] = ..., holder: _Optional[_Union[_lease_pb2.Holder, _Mapping]] = ..., gpu: _Optional[_Union[_lease_pb2.GpuRequest, _Mapping]] = ..., priority: _Optional[int] = ..., busy_policy: _Optional[_Union[_lease_pb2.BusyPolicy, str]] = ..., max_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_hold: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., detached: _Optional[bool] = ..., sequence: _Optional[_Union[_lease_pb2.Sequence, _Mapping]] = ..., context: _Optional[_Union[_lease_pb2.WorkContext, _Mapping]] = ..., traceparent: _Optional[str] = ..., tracestate: _Optional[str] = ...) -> None: ...

class AcquireResponse(_message.Message):
    __slots__ = ("queued", "granted", "declined", "yield_requested", "ended")
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    DECLINED_FIELD_NUMBER: _ClassVar[int]
    YIELD_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    queued: Queued
    granted: Granted
    declined: Declined
    yield_requested: YieldRequested
    ended: Ended
    def __init__(self, queued: _Optional[_Union[Queued, _Mapping]] = ..., granted: _Optional[_Union[Granted, _Mapping]] = ..., declined: _Optional[_Union[Declined, _Mapping]] = ..., yield_requested: _Optional[_Union[YieldRequested, _Mapping]] = ..., ended: _Optional[_Union[Ended, _Mapping]] = ...) -> None: ...

class Queued(_message.Message):
    __slots__ = ("request_id", "position", "queue_length", "reason", "estimated_wait", "detail", "blockers")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    QUEUE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_WAIT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    BLOCKERS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    position: int
    queue_length: int
    reason: _lease_pb2.WaitReason
    estimated_wait: _duration_pb2.Duration
    detail: str
    blockers: _containers.RepeatedCompositeFieldContainer[_lease_pb2.Blocker]
    def __init__(self, request_id: _Optional[str] = ..., position: _Optional[int] = ..., queue_length: _Optional[int] = ..., reason: _Optional[_Union[_lease_pb2.WaitReason, str]] = ..., estimated_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., detail: _Optional[str] = ..., blockers: _Optional[_Iterable[_Union[_lease_pb2.Blocker, _Mapping]]] = ...) -> None: ...

class Granted(_message.Message):
    __slots__ = ("lease",)
    LEASE_FIELD_NUMBER: _ClassVar[int]
    lease: _lease_pb2.Lease
    def __init__(self, lease: _Optional[_Union[_lease_pb2.Lease, _Mapping]] = ...) -> None: ...

class Declined(_message.Message):
    __slots__ = ("decision", "reason", "waited", "retry_after", "detail", "blockers")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    WAITED_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    BLOCKERS_FIELD_NUMBER: _ClassVar[int]
    decision: _lease_pb2.BusyPolicy
    reason: _lease_pb2.WaitReason
    waited: _duration_pb2.Duration
    retry_after: _duration_pb2.Duration
    detail: str
    blockers: _containers.RepeatedCompositeFieldContainer[_lease_pb2.Blocker]
    def __init__(self, decision: _Optional[_Union[_lease_pb2.BusyPolicy, str]] = ..., reason: _Optional[_Union[_lease_pb2.WaitReason, str]] = ..., waited: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., detail: _Optional[str] = ..., blockers: _Optional[_Iterable[_Union[_lease_pb2.Blocker, _Mapping]]] = ...) -> None: ...

class YieldRequested(_message.Message):
    __slots__ = ("reason", "grace", "detail")
    REASON_FIELD_NUMBER: _ClassVar[int]
    GRACE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    reason: _lease_pb2.YieldReason
    grace: _duration_pb2.Duration
    detail: str
    def __init__(self, reason: _Optional[_Union[_lease_pb2.YieldReason, str]] = ..., grace: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., detail: _Optional[str] = ...) -> None: ...

class Ended(_message.Message):
    __slots__ = ("reason", "held", "detail", "cause", "memory_verdict", "memory_peak_bytes")
    REASON_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_VERDICT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_PEAK_BYTES_FIELD_NUMBER: _ClassVar[int]
    reason: _lease_pb2.EndReason
    held: _duration_pb2.Duration
    detail: str
    cause: _lease_pb2.YieldReason
    memory_verdict: _lease_pb2.MemoryVerdict
    memory_peak_bytes: int
    def __init__(self, reason: _Optional[_Union[_lease_pb2.EndReason, str]] = ..., held: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., detail: _Optional[str] = ..., cause: _Optional[_Union[_lease_pb2.YieldReason, str]] = ..., memory_verdict: _Optional[_Union[_lease_pb2.MemoryVerdict, str]] = ..., memory_peak_bytes: _Optional[int] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("lease_id", "request_id", "fencing_token", "report")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    request_id: str
    fencing_token: int
    report: _lease_pb2.WorkReport
    def __init__(self, lease_id: _Optional[str] = ..., request_id: _Optional[str] = ..., fencing_token: _Optional[int] = ..., report: _Optional[_Union[_lease_pb2.WorkReport, _Mapping]] = ...) -> None: ...

class ReleaseResponse(_message.Message):
    __slots__ = ("reason", "held", "already_ended", "memory_verdict", "memory_peak_bytes")
    REASON_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    ALREADY_ENDED_FIELD_NUMBER: _ClassVar[int]
    MEMORY_VERDICT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_PEAK_BYTES_FIELD_NUMBER: _ClassVar[int]
    reason: _lease_pb2.EndReason
    held: _duration_pb2.Duration
    already_ended: bool
    memory_verdict: _lease_pb2.MemoryVerdict
    memory_peak_bytes: int
    def __init__(self, reason: _Optional[_Union[_lease_pb2.EndReason, str]] = ..., held: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., already_ended: _Optional[bool] = ..., memory_verdict: _Optional[_Union[_lease_pb2.MemoryVerdict, str]] = ..., memory_peak_bytes: _Optional[int] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("lease_id", "fencing_token", "extend_hold")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXTEND_HOLD_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    fencing_token: int
    extend_hold: _duration_pb2.Duration
    def __init__(self, lease_id: _Optional[str] = ..., fencing_token: _Optional[int] = ..., extend_hold: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class RenewResponse(_message.Message):
    __slots__ = ("ttl_remaining", "hold_remaining", "pending_yield")
    TTL_REMAINING_FIELD_NUMBER: _ClassVar[int]
    HOLD_REMAINING_FIELD_NUMBER: _ClassVar[int]
    PENDING_YIELD_FIELD_NUMBER: _ClassVar[int]
    ttl_remaining: _duration_pb2.Duration
    hold_remaining: _duration_pb2.Duration
    pending_yield: YieldRequested
    def __init__(self, ttl_remaining: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., hold_remaining: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., pending_yield: _Optional[_Union[YieldRequested, _Mapping]] = ...) -> None: ...

class ResizeRequest(_message.Message):
    __slots__ = ("lease_id", "fencing_token", "memory_bytes", "sharing")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHARING_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    fencing_token: int
    memory_bytes: int
    sharing: _lease_pb2.Sharing
    def __init__(self, lease_id: _Optional[str] = ..., fencing_token: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., sharing: _Optional[_Union[_lease_pb2.Sharing, str]] = ...) -> None: ...

class ResizeResponse(_message.Message):
    __slots__ = ("lease",)
    LEASE_FIELD_NUMBER: _ClassVar[int]
    lease: _lease_pb2.Lease
    def __init__(self, lease: _Optional[_Union[_lease_pb2.Lease, _Mapping]] = ...) -> None: ...

class CheckFenceRequest(_message.Message):
    __slots__ = ("gpu", "fencing_token")
    GPU_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    gpu: str
    fencing_token: int
    def __init__(self, gpu: _Optional[str] = ..., fencing_token: _Optional[int] = ...) -> None: ...

class CheckFenceResponse(_message.Message):
    __slots__ = ("current", "newest_token")
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    NEWEST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    current: bool
    newest_token: int
    def __init__(self, current: _Optional[bool] = ..., newest_token: _Optional[int] = ...) -> None: ...

class ReportWorkRequest(_message.Message):
    __slots__ = ("task_type", "holder", "report", "context", "traceparent", "tracestate")
    TASK_TYPE_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    task_type: str
    holder: _lease_pb2.Holder
    report: _lease_pb2.WorkReport
    context: _lease_pb2.WorkContext
    traceparent: str
    tracestate: str
    def __init__(self, task_type: _Optional[str] = ..., holder: _Optional[_Union[_lease_pb2.Holder, _Mapping]] = ..., report: _Optional[_Union[_lease_pb2.WorkReport, _Mapping]] = ..., context: _Optional[_Union[_lease_pb2.WorkContext, _Mapping]] = ..., traceparent: _Optional[str] = ..., tracestate: _Optional[str] = ...) -> None: ...

class ReportWorkResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SessionRequest(_message.Message):
    __slots__ = ("call_id", "open", "acquire", "cancel", "release", "renew", "resize", "report_work", "check_fence")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    ACQUIRE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    RENEW_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    REPORT_WORK_FIELD_NUMBER: _ClassVar[int]
    CHECK_FENCE_FIELD_NUMBER: _ClassVar[int]
    call_id: int
    open: SessionOpen
    acquire: AcquireRequest
    cancel: CancelAcquire
    release: ReleaseRequest
    renew: RenewRequest
    resize: ResizeRequest
    report_work: ReportWorkRequest
    check_fence: CheckFenceRequest
    def __init__(self, call_id: _Optional[int] = ..., open: _Optional[_Union[SessionOpen, _Mapping]] = ..., acquire: _Optional[_Union[AcquireRequest, _Mapping]] = ..., cancel: _Optional[_Union[CancelAcquire, _Mapping]] = ..., release: _Optional[_Union[ReleaseRequest, _Mapping]] = ..., renew: _Optional[_Union[RenewRequest, _Mapping]] = ..., resize: _Optional[_Union[ResizeRequest, _Mapping]] = ..., report_work: _Optional[_Union[ReportWorkRequest, _Mapping]] = ..., check_fence: _Optional[_Union[CheckFenceRequest, _Mapping]] = ...) -> None: ...

class SessionOpen(_message.Message):
    __slots__ = ("holder", "user_agent")
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    USER_AGENT_FIELD_NUMBER: _ClassVar[int]
    holder: _lease_pb2.Holder
    user_agent: str
    def __init__(self, holder: _Optional[_Union[_lease_pb2.Holder, _Mapping]] = ..., user_agent: _Optional[str] = ...) -> None: ...

class CancelAcquire(_message.Message):
    __slots__ = ("acquire_call_id",)
    ACQUIRE_CALL_ID_FIELD_NUMBER: _ClassVar[int]
    acquire_call_id: int
    def __init__(self, acquire_call_id: _Optional[int] = ...) -> None: ...

class SessionResponse(_message.Message):
    __slots__ = ("call_id", "opened", "acquire", "release", "renew", "resize", "report_work", "failure", "check_fence")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    ACQUIRE_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    RENEW_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    REPORT_WORK_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    CHECK_FENCE_FIELD_NUMBER: _ClassVar[int]
    call_id: int
    opened: SessionOpened
    acquire: AcquireResponse
    release: ReleaseResponse
    renew: RenewResponse
    resize: ResizeResponse
    report_work: ReportWorkResponse
    failure: _error_pb2.Failure
    check_fence: CheckFenceResponse
    def __init__(self, call_id: _Optional[int] = ..., opened: _Optional[_Union[SessionOpened, _Mapping]] = ..., acquire: _Optional[_Union[AcquireResponse, _Mapping]] = ..., release: _Optional[_Union[ReleaseResponse, _Mapping]] = ..., renew: _Optional[_Union[RenewResponse, _Mapping]] = ..., resize: _Optional[_Union[ResizeResponse, _Mapping]] = ..., report_work: _Optional[_Union[ReportWorkResponse, _Mapping]] = ..., failure: _Optional[_Union[_error_pb2.Failure, _Mapping]] = ..., check_fence: _Optional[_Union[CheckFenceResponse, _Mapping]] = ...) -> None: ...

class SessionOpened(_message.Message):
    __slots__ = ("session_id", "instance_id", "epoch")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    instance_id: str
    epoch: int
    def __init__(self, session_id: _Optional[str] = ..., instance_id: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class SnapshotRequest(_message.Message):
    __slots__ = ("gpus", "watch", "min_interval", "processes", "max_tickets")
    GPUS_FIELD_NUMBER: _ClassVar[int]
    WATCH_FIELD_NUMBER: _ClassVar[int]
    MIN_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    MAX_TICKETS_FIELD_NUMBER: _ClassVar[int]
    gpus: _containers.RepeatedScalarFieldContainer[str]
    watch: bool
    min_interval: _duration_pb2.Duration
    processes: bool
    max_tickets: int
    def __init__(self, gpus: _Optional[_Iterable[str]] = ..., watch: _Optional[bool] = ..., min_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., processes: _Optional[bool] = ..., max_tickets: _Optional[int] = ...) -> None: ...

class SnapshotResponse(_message.Message):
    __slots__ = ("snapshot",)
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    snapshot: _snapshot_pb2.ArbiterSnapshot
    def __init__(self, snapshot: _Optional[_Union[_snapshot_pb2.ArbiterSnapshot, _Mapping]] = ...) -> None: ...
