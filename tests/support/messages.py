"""Requests of the contract, with what every test needs filled in."""

from typing import Any

from google.protobuf.duration_pb2 import Duration

from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import lease_pb2

GIB = 1024**3


def seconds(value: float) -> Duration:
    """A Duration."""
    message = Duration()
    message.FromNanoseconds(round(value * 1e9))
    return message


def in_seconds(duration: Duration) -> float:
    """A Duration as a number."""
    return duration.ToNanoseconds() / 1e9


def holder(client_id: str = "worker-0", **fields: Any) -> lease_pb2.Holder:
    """Who asks."""
    return lease_pb2.Holder(client_id=client_id, **fields)


def acquire(request_id: str = "", *, client: str = "worker-0", **fields: Any) -> pb.AcquireRequest:
    """A request for an exclusive lease on any GPU; max_wait, max_hold and ttl as plain seconds."""
    for name in ("max_wait", "max_hold", "ttl"):
        if isinstance(fields.get(name), int | float):
            fields[name] = seconds(fields[name])
    fields.setdefault("task_type", "ASR")
    fields.setdefault("holder", holder(client))
    return pb.AcquireRequest(request_id=request_id, **fields)


def release(lease: lease_pb2.Lease) -> pb.ReleaseRequest:
    """Gives a lease back, under its token."""
    return pb.ReleaseRequest(lease_id=lease.lease_id, fencing_token=lease.fencing_token)
