import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from gpuarbiter.v1 import lease_pb2 as _lease_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GpuHealth(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GPU_HEALTH_UNSPECIFIED: _ClassVar[GpuHealth]
    GPU_HEALTH_OK: _ClassVar[GpuHealth]
    GPU_HEALTH_UNMONITORED: _ClassVar[GpuHealth]
    GPU_HEALTH_STALE: _ClassVar[GpuHealth]
    GPU_HEALTH_LOST: _ClassVar[GpuHealth]

class Pressure(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRESSURE_UNSPECIFIED: _ClassVar[Pressure]
    PRESSURE_NORMAL: _ClassVar[Pressure]
    PRESSURE_HIGH: _ClassVar[Pressure]

class UtilizationStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UTILIZATION_STATUS_UNSPECIFIED: _ClassVar[UtilizationStatus]
    UTILIZATION_STATUS_IDLE: _ClassVar[UtilizationStatus]
    UTILIZATION_STATUS_LOW: _ClassVar[UtilizationStatus]
    UTILIZATION_STATUS_NORMAL: _ClassVar[UtilizationStatus]
    UTILIZATION_STATUS_HIGH: _ClassVar[UtilizationStatus]
GPU_HEALTH_UNSPECIFIED: GpuHealth
GPU_HEALTH_OK: GpuHealth
GPU_HEALTH_UNMONITORED: GpuHealth
GPU_HEALTH_STALE: GpuHealth
GPU_HEALTH_LOST: GpuHealth
PRESSURE_UNSPECIFIED: Pressure
PRESSURE_NORMAL: Pressure
PRESSURE_HIGH: Pressure
UTILIZATION_STATUS_UNSPECIFIED: UtilizationStatus
UTILIZATION_STATUS_IDLE: UtilizationStatus
UTILIZATION_STATUS_LOW: UtilizationStatus
UTILIZATION_STATUS_NORMAL: UtilizationStatus
UTILIZATION_STATUS_HIGH: UtilizationStatus

class ArbiterSnapshot(_message.Message):
    __slots__ = ("revision", "snapshot_time", "instance_id", "version", "start_time", "nvml_up", "draining", "gpus", "epoch", "recovering", "node", "leases", "queue", "queue_length")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_TIME_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    NVML_UP_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    RECOVERING_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    revision: int
    snapshot_time: _timestamp_pb2.Timestamp
    instance_id: str
    version: str
    start_time: _timestamp_pb2.Timestamp
    nvml_up: bool
    draining: bool
    gpus: _containers.RepeatedCompositeFieldContainer[GpuSnapshot]
    epoch: int
    recovering: bool
    node: str
    leases: _containers.RepeatedCompositeFieldContainer[_lease_pb2.Lease]
    queue: _containers.RepeatedCompositeFieldContainer[Ticket]
    queue_length: int
    def __init__(self, revision: _Optional[int] = ..., snapshot_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., instance_id: _Optional[str] = ..., version: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., nvml_up: _Optional[bool] = ..., draining: _Optional[bool] = ..., gpus: _Optional[_Iterable[_Union[GpuSnapshot, _Mapping]]] = ..., epoch: _Optional[int] = ..., recovering: _Optional[bool] = ..., node: _Optional[str] = ..., leases: _Optional[_Iterable[_Union[_lease_pb2.Lease, _Mapping]]] = ..., queue: _Optional[_Iterable[_Union[Ticket, _Mapping]]] = ..., queue_length: _Optional[int] = ...) -> None: ...

class GpuSnapshot(_message.Message):
    __slots__ = ("key", "uuid", "index", "name", "health", "cordoned", "pressure", "memory", "sample", "lease_ids", "queue_length", "queue_limit", "stats", "processes", "cooldown_remaining", "parent_uuid")
    KEY_FIELD_NUMBER: _ClassVar[int]
    UUID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    CORDONED_FIELD_NUMBER: _ClassVar[int]
    PRESSURE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    LEASE_IDS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    QUEUE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    COOLDOWN_REMAINING_FIELD_NUMBER: _ClassVar[int]
    PARENT_UUID_FIELD_NUMBER: _ClassVar[int]
    key: str
    uuid: str
    index: int
    name: str
    health: GpuHealth
    cordoned: bool
    pressure: Pressure
    memory: GpuMemory
    sample: GpuSample
    lease_ids: _containers.RepeatedScalarFieldContainer[str]
    queue_length: int
    queue_limit: int
    stats: GpuStats
    processes: _containers.RepeatedCompositeFieldContainer[GpuProcess]
    cooldown_remaining: _duration_pb2.Duration
    parent_uuid: str
    def __init__(self, key: _Optional[str] = ..., uuid: _Optional[str] = ..., index: _Optional[int] = ..., name: _Optional[str] = ..., health: _Optional[_Union[GpuHealth, str]] = ..., cordoned: _Optional[bool] = ..., pressure: _Optional[_Union[Pressure, str]] = ..., memory: _Optional[_Union[GpuMemory, _Mapping]] = ..., sample: _Optional[_Union[GpuSample, _Mapping]] = ..., lease_ids: _Optional[_Iterable[str]] = ..., queue_length: _Optional[int] = ..., queue_limit: _Optional[int] = ..., stats: _Optional[_Union[GpuStats, _Mapping]] = ..., processes: _Optional[_Iterable[_Union[GpuProcess, _Mapping]]] = ..., cooldown_remaining: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., parent_uuid: _Optional[str] = ...) -> None: ...

class GpuMemory(_message.Message):
    __slots__ = ("total_bytes", "headroom_bytes", "committed_bytes", "unleased_bytes", "admissible_bytes")
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    HEADROOM_BYTES_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    UNLEASED_BYTES_FIELD_NUMBER: _ClassVar[int]
    ADMISSIBLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    total_bytes: int
    headroom_bytes: int
    committed_bytes: int
    unleased_bytes: int
    admissible_bytes: int
    def __init__(self, total_bytes: _Optional[int] = ..., headroom_bytes: _Optional[int] = ..., committed_bytes: _Optional[int] = ..., unleased_bytes: _Optional[int] = ..., admissible_bytes: _Optional[int] = ...) -> None: ...

class GpuSample(_message.Message):
    __slots__ = ("sample_time", "memory_used_bytes", "memory_free_bytes", "utilization_ratio", "memory_bandwidth_ratio", "power_watts", "power_limit_watts", "temperature_celsius", "sm_clock_hertz", "utilization_score", "utilization_status")
    SAMPLE_TIME_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    UTILIZATION_RATIO_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BANDWIDTH_RATIO_FIELD_NUMBER: _ClassVar[int]
    POWER_WATTS_FIELD_NUMBER: _ClassVar[int]
    POWER_LIMIT_WATTS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_CELSIUS_FIELD_NUMBER: _ClassVar[int]
    SM_CLOCK_HERTZ_FIELD_NUMBER: _ClassVar[int]
    UTILIZATION_SCORE_FIELD_NUMBER: _ClassVar[int]
    UTILIZATION_STATUS_FIELD_NUMBER: _ClassVar[int]
    sample_time: _timestamp_pb2.Timestamp
    memory_used_bytes: int
    memory_free_bytes: int
    utilization_ratio: float
    memory_bandwidth_ratio: float
    power_watts: float
    power_limit_watts: float
    temperature_celsius: float
    sm_clock_hertz: int
    utilization_score: float
    utilization_status: UtilizationStatus
    def __init__(self, sample_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., memory_used_bytes: _Optional[int] = ..., memory_free_bytes: _Optional[int] = ..., utilization_ratio: _Optional[float] = ..., memory_bandwidth_ratio: _Optional[float] = ..., power_watts: _Optional[float] = ..., power_limit_watts: _Optional[float] = ..., temperature_celsius: _Optional[float] = ..., sm_clock_hertz: _Optional[int] = ..., utilization_score: _Optional[float] = ..., utilization_status: _Optional[_Union[UtilizationStatus, str]] = ...) -> None: ...

class Ticket(_message.Message):
    __slots__ = ("request_id", "task_type", "holder", "priority", "position", "reason", "enqueue_time", "wait_deadline", "memory_bytes", "sharing", "context", "candidates", "count")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_TYPE_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ENQUEUE_TIME_FIELD_NUMBER: _ClassVar[int]
    WAIT_DEADLINE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHARING_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    task_type: str
    holder: _lease_pb2.Holder
    priority: int
    position: int
    reason: _lease_pb2.WaitReason
    enqueue_time: _timestamp_pb2.Timestamp
    wait_deadline: _timestamp_pb2.Timestamp
    memory_bytes: int
    sharing: _lease_pb2.Sharing
    context: _lease_pb2.WorkContext
    candidates: _containers.RepeatedScalarFieldContainer[str]
    count: int
    def __init__(self, request_id: _Optional[str] = ..., task_type: _Optional[str] = ..., holder: _Optional[_Union[_lease_pb2.Holder, _Mapping]] = ..., priority: _Optional[int] = ..., position: _Optional[int] = ..., reason: _Optional[_Union[_lease_pb2.WaitReason, str]] = ..., enqueue_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., wait_deadline: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., memory_bytes: _Optional[int] = ..., sharing: _Optional[_Union[_lease_pb2.Sharing, str]] = ..., context: _Optional[_Union[_lease_pb2.WorkContext, _Mapping]] = ..., candidates: _Optional[_Iterable[str]] = ..., count: _Optional[int] = ...) -> None: ...

class GpuStats(_message.Message):
    __slots__ = ("queue_wait_p50", "queue_wait_p95", "hold_p50", "hold_p95", "granted_total", "declined_total", "timed_out_total", "watchdog_total")
    QUEUE_WAIT_P50_FIELD_NUMBER: _ClassVar[int]
    QUEUE_WAIT_P95_FIELD_NUMBER: _ClassVar[int]
    HOLD_P50_FIELD_NUMBER: _ClassVar[int]
    HOLD_P95_FIELD_NUMBER: _ClassVar[int]
    GRANTED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    DECLINED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    TIMED_OUT_TOTAL_FIELD_NUMBER: _ClassVar[int]
    WATCHDOG_TOTAL_FIELD_NUMBER: _ClassVar[int]
    queue_wait_p50: _duration_pb2.Duration
    queue_wait_p95: _duration_pb2.Duration
    hold_p50: _duration_pb2.Duration
    hold_p95: _duration_pb2.Duration
    granted_total: int
    declined_total: int
    timed_out_total: int
    watchdog_total: int
    def __init__(self, queue_wait_p50: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., queue_wait_p95: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., hold_p50: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., hold_p95: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., granted_total: _Optional[int] = ..., declined_total: _Optional[int] = ..., timed_out_total: _Optional[int] = ..., watchdog_total: _Optional[int] = ...) -> None: ...

class GpuProcess(_message.Message):
    __slots__ = ("pid", "name", "memory_used_bytes", "lease_id", "namespace", "pod")
    PID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    pid: int
    name: str
    memory_used_bytes: int
    lease_id: str
    namespace: str
    pod: str
    def __init__(self, pid: _Optional[int] = ..., name: _Optional[str] = ..., memory_used_bytes: _Optional[int] = ..., lease_id: _Optional[str] = ..., namespace: _Optional[str] = ..., pod: _Optional[str] = ...) -> None: ...
