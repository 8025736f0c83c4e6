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

class EventType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVENT_TYPE_UNSPECIFIED: _ClassVar[EventType]
    EVENT_TYPE_QUEUED: _ClassVar[EventType]
    EVENT_TYPE_GRANTED: _ClassVar[EventType]
    EVENT_TYPE_DECLINED: _ClassVar[EventType]
    EVENT_TYPE_FAILED: _ClassVar[EventType]
    EVENT_TYPE_RENEWED: _ClassVar[EventType]
    EVENT_TYPE_RESIZED: _ClassVar[EventType]
    EVENT_TYPE_HOLD_EXCEEDED: _ClassVar[EventType]
    EVENT_TYPE_YIELD_REQUESTED: _ClassVar[EventType]
    EVENT_TYPE_ENDED: _ClassVar[EventType]
    EVENT_TYPE_DETACHED: _ClassVar[EventType]
    EVENT_TYPE_JOINED: _ClassVar[EventType]
    EVENT_TYPE_COOLDOWN_STARTED: _ClassVar[EventType]
    EVENT_TYPE_COOLDOWN_ENDED: _ClassVar[EventType]
    EVENT_TYPE_MEMORY_OVERUSE: _ClassVar[EventType]
    EVENT_TYPE_MEMORY_RECOVERED: _ClassVar[EventType]
    EVENT_TYPE_GPU_LOST: _ClassVar[EventType]
    EVENT_TYPE_GPU_RESTORED: _ClassVar[EventType]
    EVENT_TYPE_DRAINED: _ClassVar[EventType]
    EVENT_TYPE_RESUMED: _ClassVar[EventType]
    EVENT_TYPE_CONFIG_UPDATED: _ClassVar[EventType]
    EVENT_TYPE_STARTED: _ClassVar[EventType]
    EVENT_TYPE_RECOVERED: _ClassVar[EventType]
    EVENT_TYPE_STOPPING: _ClassVar[EventType]
    EVENT_TYPE_WORK_REPORTED: _ClassVar[EventType]
EVENT_TYPE_UNSPECIFIED: EventType
EVENT_TYPE_QUEUED: EventType
EVENT_TYPE_GRANTED: EventType
EVENT_TYPE_DECLINED: EventType
EVENT_TYPE_FAILED: EventType
EVENT_TYPE_RENEWED: EventType
EVENT_TYPE_RESIZED: EventType
EVENT_TYPE_HOLD_EXCEEDED: EventType
EVENT_TYPE_YIELD_REQUESTED: EventType
EVENT_TYPE_ENDED: EventType
EVENT_TYPE_DETACHED: EventType
EVENT_TYPE_JOINED: EventType
EVENT_TYPE_COOLDOWN_STARTED: EventType
EVENT_TYPE_COOLDOWN_ENDED: EventType
EVENT_TYPE_MEMORY_OVERUSE: EventType
EVENT_TYPE_MEMORY_RECOVERED: EventType
EVENT_TYPE_GPU_LOST: EventType
EVENT_TYPE_GPU_RESTORED: EventType
EVENT_TYPE_DRAINED: EventType
EVENT_TYPE_RESUMED: EventType
EVENT_TYPE_CONFIG_UPDATED: EventType
EVENT_TYPE_STARTED: EventType
EVENT_TYPE_RECOVERED: EventType
EVENT_TYPE_STOPPING: EventType
EVENT_TYPE_WORK_REPORTED: EventType

class DrainRequest(_message.Message):
    __slots__ = ("gpus", "all", "reason", "grace")
    GPUS_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    GRACE_FIELD_NUMBER: _ClassVar[int]
    gpus: _containers.RepeatedScalarFieldContainer[str]
    all: bool
    reason: str
    grace: _duration_pb2.Duration
    def __init__(self, gpus: _Optional[_Iterable[str]] = ..., all: _Optional[bool] = ..., reason: _Optional[str] = ..., grace: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ("leases_left",)
    LEASES_LEFT_FIELD_NUMBER: _ClassVar[int]
    leases_left: int
    def __init__(self, leases_left: _Optional[int] = ...) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ("gpus", "all")
    GPUS_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    gpus: _containers.RepeatedScalarFieldContainer[str]
    all: bool
    def __init__(self, gpus: _Optional[_Iterable[str]] = ..., all: _Optional[bool] = ...) -> None: ...

class ResumeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RevokeRequest(_message.Message):
    __slots__ = ("lease_id", "grace", "reason")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    GRACE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    grace: _duration_pb2.Duration
    reason: str
    def __init__(self, lease_id: _Optional[str] = ..., grace: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class RevokeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetConfigRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetConfigResponse(_message.Message):
    __slots__ = ("config_yaml", "revision")
    CONFIG_YAML_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    config_yaml: str
    revision: int
    def __init__(self, config_yaml: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class UpdateConfigRequest(_message.Message):
    __slots__ = ("patch_yaml", "revision", "dry_run")
    PATCH_YAML_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    patch_yaml: str
    revision: int
    dry_run: bool
    def __init__(self, patch_yaml: _Optional[str] = ..., revision: _Optional[int] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class UpdateConfigResponse(_message.Message):
    __slots__ = ("config_yaml", "revision", "restart_needed")
    CONFIG_YAML_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    RESTART_NEEDED_FIELD_NUMBER: _ClassVar[int]
    config_yaml: str
    revision: int
    restart_needed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, config_yaml: _Optional[str] = ..., revision: _Optional[int] = ..., restart_needed: _Optional[_Iterable[str]] = ...) -> None: ...

class ListEventsRequest(_message.Message):
    __slots__ = ("after_sequence", "since", "follow", "limit")
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    after_sequence: int
    since: _timestamp_pb2.Timestamp
    follow: bool
    limit: int
    def __init__(self, after_sequence: _Optional[int] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., follow: _Optional[bool] = ..., limit: _Optional[int] = ...) -> None: ...

class ListEventsResponse(_message.Message):
    __slots__ = ("sequence", "event_time", "type", "lease_id", "request_id", "task_type", "holder", "gpus", "fencing_token", "detail")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_TYPE_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    event_time: _timestamp_pb2.Timestamp
    type: EventType
    lease_id: str
    request_id: str
    task_type: str
    holder: _lease_pb2.Holder
    gpus: _containers.RepeatedScalarFieldContainer[str]
    fencing_token: int
    detail: str
    def __init__(self, sequence: _Optional[int] = ..., event_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., type: _Optional[_Union[EventType, str]] = ..., lease_id: _Optional[str] = ..., request_id: _Optional[str] = ..., task_type: _Optional[str] = ..., holder: _Optional[_Union[_lease_pb2.Holder, _Mapping]] = ..., gpus: _Optional[_Iterable[str]] = ..., fencing_token: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...
