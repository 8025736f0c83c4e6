"""The one table of limits: what each field of each request may be. Checks, docs and tests come from it.

Law: every field of every message that a client can send has its row; a test compares the table with the
descriptors.
"""

from typing import Any

from google.protobuf.descriptor import EnumDescriptor

from gpuarbiter.v1 import admin_pb2, gpu_arbiter_pb2, lease_pb2
from gpuarbiter_server.api.limits import Choice, Flag, Items, Limit, Moment, Number, Part, Rows, Rule, Span, Table, Text

DAY = 86_400.0
YEAR = 365 * DAY
_TASK_TYPE = r"[A-Za-z0-9_.-]+"


def _enum(module: Any, name: str) -> EnumDescriptor:
    descriptor: EnumDescriptor = module.DESCRIPTOR.enum_types_by_name[name]
    return descriptor


_GPU_NAME = Text(128, required=True)
_GPU_NAMES = Items(64, _GPU_NAME)
_LEASE_ID = Text(64, required=True)
_REQUEST_ID = Text(64)
_TASK = Text(64, _TASK_TYPE, required=True)
_BYTES = Number()
_TOKEN = Number(most=2**64 - 1)
_CALL_ID = Number(most=2**64 - 1)
_HOLD = Span(YEAR)
_SHARING = Choice(_enum(lease_pb2, "Sharing"))
_TRACEPARENT = Text(128)
_TRACESTATE = Text(512)
_GPUS_OR_ALL = Rule("gpus", lambda m: bool(m.gpus) != m.all, "either gpus or all must be given, not both")
_CALLS = ("open", "acquire", "cancel", "release", "renew", "resize", "report_work", "check_fence")

_ONE_CALL: dict[str, Limit] = dict.fromkeys(_CALLS, Part())

LIMITS: dict[str, Rows] = {
    "Holder": Rows(
        {
            "client_id": Text(128, required=True),
            "pid": Number(most=2**31 - 1),
            "namespace": Text(253),
            "pod": Text(253),
            "container": Text(253),
            "pid_namespace": Number(most=2**64 - 1),
            "process_start_ticks": Number(most=2**64 - 1),
            "attestation": Text(256),
        }
    ),
    "GpuRequest": Rows(
        {
            "candidates": _GPU_NAMES,
            "count": Number(most=64),
            "memory_bytes": _BYTES,
            "sharing": _SHARING,
            "placement": Choice(_enum(lease_pb2, "Placement")),
            "resident_bytes": _BYTES,
        }
    ),
    "Sequence": Rows({"group": Text(128, required=True), "index": Number(most=2**64 - 1)}),
    "WorkContext": Rows(
        {
            "job_id": Text(256),
            "session_id": Text(256),
            "utterance_index": Number(most=2**64 - 1),
            "stage": Text(256),
            "attributes": Table(16, Text(64, required=True), Text(256, r"[^\x00]+")),
        }
    ),
    "WorkReport": Rows(
        {
            "result": Choice(_enum(lease_pb2, "WorkResult")),
            "device": Choice(_enum(lease_pb2, "WorkDevice")),
            "work_items": Number(),
            "peak_memory_bytes": _BYTES,
            "duration": Span(YEAR),
        }
    ),
    "AcquireRequest": Rows(
        {
            "request_id": _REQUEST_ID,
            "task_type": _TASK,
            "holder": Part(required=True),
            "gpu": Part(),
            "priority": Number(most=100),
            "busy_policy": Choice(_enum(lease_pb2, "BusyPolicy")),
            "max_wait": Span(DAY),
            "max_hold": _HOLD,
            "ttl": Span(YEAR),
            "detached": Flag(),
            "sequence": Part(),
            "context": Part(),
            "traceparent": _TRACEPARENT,
            "tracestate": _TRACESTATE,
        },
        (
            Rule("request_id", lambda m: not m.detached or bool(m.request_id), "must be given with detached"),
            Rule(
                "ttl",
                lambda m: not m.detached or m.ttl.seconds > 0 or m.ttl.nanos > 0,
                "must be longer than 0 s with detached",
            ),
        ),
    ),
    "ReleaseRequest": Rows(
        {"lease_id": _LEASE_ID, "request_id": Text(64, required=True), "fencing_token": _TOKEN, "report": Part()},
        (Rule("target", lambda m: m.WhichOneof("target") is not None, "lease_id or request_id must be given"),),
    ),
    "RenewRequest": Rows({"lease_id": _LEASE_ID, "fencing_token": _TOKEN, "extend_hold": _HOLD}),
    "ResizeRequest": Rows(
        {"lease_id": _LEASE_ID, "fencing_token": _TOKEN, "memory_bytes": _BYTES, "sharing": _SHARING}
    ),
    "CheckFenceRequest": Rows({"gpu": _GPU_NAME, "fencing_token": Number(most=2**64 - 1, required=True)}),
    "ReportWorkRequest": Rows(
        {
            "task_type": _TASK,
            "holder": Part(required=True),
            "report": Part(required=True),
            "context": Part(),
            "traceparent": _TRACEPARENT,
            "tracestate": _TRACESTATE,
        }
    ),
    "SessionOpen": Rows({"holder": Part(required=True), "user_agent": Text(256)}),
    "CancelAcquire": Rows({"acquire_call_id": _CALL_ID}),
    "SessionRequest": Rows(
        {"call_id": _CALL_ID, **_ONE_CALL},
        (Rule("call", lambda m: m.WhichOneof("call") is not None, "one of the calls must be given"),),
    ),
    "SnapshotRequest": Rows(
        {
            "gpus": _GPU_NAMES,
            "watch": Flag(),
            "min_interval": Span(DAY, least=0.05),
            "processes": Flag(),
            "max_tickets": Number(most=100_000),
        }
    ),
    "DrainRequest": Rows(
        {"gpus": _GPU_NAMES, "all": Flag(), "reason": Text(1024), "grace": Span(DAY)},
        (_GPUS_OR_ALL,),
    ),
    "ResumeRequest": Rows({"gpus": _GPU_NAMES, "all": Flag()}, (_GPUS_OR_ALL,)),
    "RevokeRequest": Rows({"lease_id": _LEASE_ID, "grace": Span(DAY), "reason": Text(1024)}),
    "GetConfigRequest": Rows({}),
    "UpdateConfigRequest": Rows(
        {"patch_yaml": Text(65_536, r"[^\x00]+", required=True), "revision": Number(most=2**64 - 1), "dry_run": Flag()}
    ),
    "ListEventsRequest": Rows(
        {
            "after_sequence": Number(most=2**64 - 1),
            "since": Moment(),
            "follow": Flag(),
            "limit": Number(most=2**32 - 1),
        }
    ),
}

# Every message that opens a call, by its name in the contract.
REQUESTS = tuple(
    name
    for module in (gpu_arbiter_pb2, admin_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for name in (method.input_type.name for method in service.methods)
)
