import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BusyPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BUSY_POLICY_UNSPECIFIED: _ClassVar[BusyPolicy]
    BUSY_POLICY_WAIT: _ClassVar[BusyPolicy]
    BUSY_POLICY_SKIP: _ClassVar[BusyPolicy]
    BUSY_POLICY_FALLBACK_CPU: _ClassVar[BusyPolicy]

class Sharing(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SHARING_UNSPECIFIED: _ClassVar[Sharing]
    SHARING_EXCLUSIVE: _ClassVar[Sharing]
    SHARING_SHARED: _ClassVar[Sharing]

class Placement(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PLACEMENT_UNSPECIFIED: _ClassVar[Placement]
    PLACEMENT_LEAST_LOADED: _ClassVar[Placement]
    PLACEMENT_BEST_FIT: _ClassVar[Placement]
    PLACEMENT_ROUND_ROBIN: _ClassVar[Placement]

class WaitReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WAIT_REASON_UNSPECIFIED: _ClassVar[WaitReason]
    WAIT_REASON_GPU_BUSY: _ClassVar[WaitReason]
    WAIT_REASON_MEMORY: _ClassVar[WaitReason]
    WAIT_REASON_MEMORY_RECOVERY: _ClassVar[WaitReason]
    WAIT_REASON_UTILIZATION: _ClassVar[WaitReason]
    WAIT_REASON_QUEUE_ORDER: _ClassVar[WaitReason]
    WAIT_REASON_SEQUENCE: _ClassVar[WaitReason]
    WAIT_REASON_QUOTA: _ClassVar[WaitReason]
    WAIT_REASON_CONCURRENCY_LIMIT: _ClassVar[WaitReason]
    WAIT_REASON_DRAINING: _ClassVar[WaitReason]
    WAIT_REASON_GPU_UNHEALTHY: _ClassVar[WaitReason]
    WAIT_REASON_RECOVERY: _ClassVar[WaitReason]
    WAIT_REASON_QUEUE_FULL: _ClassVar[WaitReason]
    WAIT_REASON_COOLDOWN: _ClassVar[WaitReason]
    WAIT_REASON_INFEASIBLE: _ClassVar[WaitReason]
    WAIT_REASON_JOURNAL: _ClassVar[WaitReason]
    WAIT_REASON_TIMEOUT: _ClassVar[WaitReason]
    WAIT_REASON_NO_READING: _ClassVar[WaitReason]
    WAIT_REASON_SHUTDOWN: _ClassVar[WaitReason]

class YieldReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    YIELD_REASON_UNSPECIFIED: _ClassVar[YieldReason]
    YIELD_REASON_QUANTUM: _ClassVar[YieldReason]
    YIELD_REASON_QUOTA: _ClassVar[YieldReason]
    YIELD_REASON_PREEMPTED: _ClassVar[YieldReason]
    YIELD_REASON_MAX_HOLD: _ClassVar[YieldReason]
    YIELD_REASON_IDLE: _ClassVar[YieldReason]
    YIELD_REASON_MEMORY_OVERUSE: _ClassVar[YieldReason]
    YIELD_REASON_DRAINING: _ClassVar[YieldReason]
    YIELD_REASON_OPERATOR: _ClassVar[YieldReason]

class EndReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    END_REASON_UNSPECIFIED: _ClassVar[EndReason]
    END_REASON_RELEASED: _ClassVar[EndReason]
    END_REASON_YIELDED: _ClassVar[EndReason]
    END_REASON_MAX_HOLD: _ClassVar[EndReason]
    END_REASON_TTL_EXPIRED: _ClassVar[EndReason]
    END_REASON_DISCONNECTED: _ClassVar[EndReason]
    END_REASON_HOLDER_DIED: _ClassVar[EndReason]
    END_REASON_REVOKED: _ClassVar[EndReason]
    END_REASON_OPERATOR: _ClassVar[EndReason]
    END_REASON_GPU_LOST: _ClassVar[EndReason]
    END_REASON_NOT_RECOVERED: _ClassVar[EndReason]
    END_REASON_CANCELLED: _ClassVar[EndReason]

class LeaseState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEASE_STATE_UNSPECIFIED: _ClassVar[LeaseState]
    LEASE_STATE_HELD: _ClassVar[LeaseState]
    LEASE_STATE_YIELDING: _ClassVar[LeaseState]
    LEASE_STATE_DETACHED: _ClassVar[LeaseState]
    LEASE_STATE_RECOVERING: _ClassVar[LeaseState]

class WorkResult(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WORK_RESULT_UNSPECIFIED: _ClassVar[WorkResult]
    WORK_RESULT_OK: _ClassVar[WorkResult]
    WORK_RESULT_FAILED: _ClassVar[WorkResult]
    WORK_RESULT_OUT_OF_MEMORY: _ClassVar[WorkResult]
    WORK_RESULT_CANCELLED: _ClassVar[WorkResult]

class WorkDevice(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WORK_DEVICE_UNSPECIFIED: _ClassVar[WorkDevice]
    WORK_DEVICE_GPU: _ClassVar[WorkDevice]
    WORK_DEVICE_CPU: _ClassVar[WorkDevice]

class MemoryVerdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEMORY_VERDICT_UNSPECIFIED: _ClassVar[MemoryVerdict]
    MEMORY_VERDICT_WITHIN: _ClassVar[MemoryVerdict]
    MEMORY_VERDICT_OVER: _ClassVar[MemoryVerdict]
    MEMORY_VERDICT_UNDER: _ClassVar[MemoryVerdict]
BUSY_POLICY_UNSPECIFIED: BusyPolicy
BUSY_POLICY_WAIT: BusyPolicy
BUSY_POLICY_SKIP: BusyPolicy
BUSY_POLICY_FALLBACK_CPU: BusyPolicy
SHARING_UNSPECIFIED: Sharing
SHARING_EXCLUSIVE: Sharing
SHARING_SHARED: Sharing
PLACEMENT_UNSPECIFIED: Placement
PLACEMENT_LEAST_LOADED: Placement
PLACEMENT_BEST_FIT: Placement
PLACEMENT_ROUND_ROBIN: Placement
WAIT_REASON_UNSPECIFIED: WaitReason
WAIT_REASON_GPU_BUSY: WaitReason
WAIT_REASON_MEMORY: WaitReason
WAIT_REASON_MEMORY_RECOVERY: WaitReason
WAIT_REASON_UTILIZATION: WaitReason
WAIT_REASON_QUEUE_ORDER: WaitReason
WAIT_REASON_SEQUENCE: WaitReason
WAIT_REASON_QUOTA: WaitReason
WAIT_REASON_CONCURRENCY_LIMIT: WaitReason
WAIT_REASON_DRAINING: WaitReason
WAIT_REASON_GPU_UNHEALTHY: WaitReason
WAIT_REASON_RECOVERY: WaitReason
WAIT_REASON_QUEUE_FULL: WaitReason
WAIT_REASON_COOLDOWN: WaitReason
WAIT_REASON_INFEASIBLE: WaitReason
WAIT_REASON_JOURNAL: WaitReason
WAIT_REASON_TIMEOUT: WaitReason
WAIT_REASON_NO_READING: WaitReason
WAIT_REASON_SHUTDOWN: WaitReason
YIELD_REASON_UNSPECIFIED: YieldReason
YIELD_REASON_QUANTUM: YieldReason
YIELD_REASON_QUOTA: YieldReason
YIELD_REASON_PREEMPTED: YieldReason
YIELD_REASON_MAX_HOLD: YieldReason
YIELD_REASON_IDLE: YieldReason
YIELD_REASON_MEMORY_OVERUSE: YieldReason
YIELD_REASON_DRAINING: YieldReason
YIELD_REASON_OPERATOR: YieldReason
END_REASON_UNSPECIFIED: EndReason
END_REASON_RELEASED: EndReason
END_REASON_YIELDED: EndReason
END_REASON_MAX_HOLD: EndReason
END_REASON_TTL_EXPIRED: EndReason
END_REASON_DISCONNECTED: EndReason
END_REASON_HOLDER_DIED: EndReason
END_REASON_REVOKED: EndReason
END_REASON_OPERATOR: EndReason
END_REASON_GPU_LOST: EndReason
END_REASON_NOT_RECOVERED: EndReason
END_REASON_CANCELLED: EndReason
LEASE_STATE_UNSPECIFIED: LeaseState
LEASE_STATE_HELD: LeaseState
LEASE_STATE_YIELDING: LeaseState
LEASE_STATE_DETACHED: LeaseState
LEASE_STATE_RECOVERING: LeaseState
WORK_RESULT_UNSPECIFIED: WorkResult
WORK_RESULT_OK: WorkResult
WORK_RESULT_FAILED: WorkResult
WORK_RESULT_OUT_OF_MEMORY: WorkResult
WORK_RESULT_CANCELLED: WorkResult
WORK_DEVICE_UNSPECIFIED: WorkDevice
WORK_DEVICE_GPU: WorkDevice
WORK_DEVICE_CPU: WorkDevice
MEMORY_VERDICT_UNSPECIFIED: MemoryVerdict
MEMORY_VERDICT_WITHIN: MemoryVerdict
MEMORY_VERDICT_OVER: MemoryVerdict
MEMORY_VERDICT_UNDER: MemoryVerdict

class Holder(_message.Message):
    __slots__ = ("client_id", "pid", "namespace", "pod", "container", "pid_namespace", "process_start_ticks", "attestation")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    PID_NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    PROCESS_START_TICKS_FIELD_NUMBER: _ClassVar[int]
    ATTESTATION_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    pid: int
    namespace: str
    pod: str
    container: str
    pid_namespace: int
    process_start_ticks: int
    attestation: str
    def __init__(self, client_id: _Optional[str] = ..., pid: _Optional[int] = ..., namespace: _Optional[str] = ..., pod: _Optional[str] = ..., container: _Optional[str] = ..., pid_namespace: _Optional[int] = ..., process_start_ticks: _Optional[int] = ..., attestation: _Optional[str] = ...) -> None: ...

class GpuRequest(_message.Message):
    __slots__ = ("candidates", "count", "memory_bytes", "sharing", "placement", "resident_bytes")
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHARING_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    candidates: _containers.RepeatedScalarFieldContainer[str]
    count: int
    memory_bytes: int
    sharing: Sharing
    placement: Placement
    resident_bytes: int
    def __init__(self, candidates: _Optional[_Iterable[str]] = ..., count: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., sharing: _Optional[_Union[Sharing, str]] = ..., placement: _Optional[_Union[Placement, str]] = ..., resident_bytes: _Optional[int] = ...) -> None: ...

class Sequence(_message.Message):
    __slots__ = ("group", "index")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    group: str
    index: int
    def __init__(self, group: _Optional[str] = ..., index: _Optional[int] = ...) -> None: ...

class WorkContext(_message.Message):
    __slots__ = ("job_id", "session_id", "utterance_index", "stage", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    UTTERANCE_INDEX_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    session_id: str
    utterance_index: int
    stage: str
    attributes: _containers.ScalarMap[str, str]
    def __init__(self, job_id: _Optional[str] = ..., session_id: _Optional[str] = ..., utterance_index: _Optional[int] = ..., stage: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class GpuGrant(_message.Message):
    __slots__ = ("key", "uuid", "index", "declared_bytes", "committed_bytes", "observed_bytes", "observed_peak_bytes")
    KEY_FIELD_NUMBER: _ClassVar[int]
    UUID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    DECLARED_BYTES_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_PEAK_BYTES_FIELD_NUMBER: _ClassVar[int]
    key: str
    uuid: str
    index: int
    declared_bytes: int
    committed_bytes: int
    observed_bytes: int
    observed_peak_bytes: int
    def __init__(self, key: _Optional[str] = ..., uuid: _Optional[str] = ..., index: _Optional[int] = ..., declared_bytes: _Optional[int] = ..., committed_bytes: _Optional[int] = ..., observed_bytes: _Optional[int] = ..., observed_peak_bytes: _Optional[int] = ...) -> None: ...

class Blocker(_message.Message):
    __slots__ = ("lease_id", "task_type", "client_id", "gpu", "held")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_TYPE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    GPU_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    task_type: str
    client_id: str
    gpu: str
    held: _duration_pb2.Duration
    def __init__(self, lease_id: _Optional[str] = ..., task_type: _Optional[str] = ..., client_id: _Optional[str] = ..., gpu: _Optional[str] = ..., held: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("lease_id", "fencing_token", "request_id", "task_type", "holder", "gpus", "sharing", "priority", "state", "queue_wait", "hold_remaining", "ttl_remaining", "grant_time", "visible_devices", "context", "ttl", "node", "principal")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_TYPE_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    SHARING_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_WAIT_FIELD_NUMBER: _ClassVar[int]
    HOLD_REMAINING_FIELD_NUMBER: _ClassVar[int]
    TTL_REMAINING_FIELD_NUMBER: _ClassVar[int]
    GRANT_TIME_FIELD_NUMBER: _ClassVar[int]
    VISIBLE_DEVICES_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    fencing_token: int
    request_id: str
    task_type: str
    holder: Holder
    gpus: _containers.RepeatedCompositeFieldContainer[GpuGrant]
    sharing: Sharing
    priority: int
    state: LeaseState
    queue_wait: _duration_pb2.Duration
    hold_remaining: _duration_pb2.Duration
    ttl_remaining: _duration_pb2.Duration
    grant_time: _timestamp_pb2.Timestamp
    visible_devices: str
    context: WorkContext
    ttl: _duration_pb2.Duration
    node: str
    principal: str
    def __init__(self, lease_id: _Optional[str] = ..., fencing_token: _Optional[int] = ..., request_id: _Optional[str] = ..., task_type: _Optional[str] = ..., holder: _Optional[_Union[Holder, _Mapping]] = ..., gpus: _Optional[_Iterable[_Union[GpuGrant, _Mapping]]] = ..., sharing: _Optional[_Union[Sharing, str]] = ..., priority: _Optional[int] = ..., state: _Optional[_Union[LeaseState, str]] = ..., queue_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., hold_remaining: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., ttl_remaining: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., grant_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., visible_devices: _Optional[str] = ..., context: _Optional[_Union[WorkContext, _Mapping]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., node: _Optional[str] = ..., principal: _Optional[str] = ...) -> None: ...

class WorkReport(_message.Message):
    __slots__ = ("result", "device", "work_items", "peak_memory_bytes", "duration")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    WORK_ITEMS_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    result: WorkResult
    device: WorkDevice
    work_items: int
    peak_memory_bytes: int
    duration: _duration_pb2.Duration
    def __init__(self, result: _Optional[_Union[WorkResult, str]] = ..., device: _Optional[_Union[WorkDevice, str]] = ..., work_items: _Optional[int] = ..., peak_memory_bytes: _Optional[int] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
