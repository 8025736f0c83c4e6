"""What a failed call says: its status, and the google.rpc details for programs."""

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

_DETAILS = "grpc-status-details-bin"


@dataclass(frozen=True)
class Refusal:
    """A status with its details; reason is empty and the rest is unset where the status carries none."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    domain: str = ""
    metadata: Mapping[str, str] | None = None
    # Seconds.
    retry_after: float | None = None
    # Path of each field that is not as it must be -> what is wrong with it.
    violations: Mapping[str, str] | None = None

    @property
    def fields(self) -> set[str]:
        """The fields that it is put down to."""
        return set(self.violations or {})


def read(error: grpc.RpcError) -> Refusal:
    """The refusal that a failed call carries."""
    packed: Any = dict(error.trailing_metadata() or ()).get(_DETAILS)
    if packed is None:
        return Refusal(error.code(), error.details() or "")
    status = status_pb2.Status.FromString(packed)
    assert status.code == error.code().value[0], "the details tell another code than the status"
    info, retry, bad = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
    unpacked = {type(part): any(detail.Unpack(part) for detail in status.details) for part in (info, retry, bad)}
    return Refusal(
        error.code(),
        error.details() or "",
        info.reason,
        info.domain,
        dict(info.metadata),
        retry.retry_delay.ToNanoseconds() / 1e9 if unpacked[type(retry)] else None,
        {violation.field: violation.description for violation in bad.field_violations},
    )


async def refusal(call: Awaitable[Any]) -> Refusal:
    """The refusal that a call ends with; fails when it is answered."""
    try:
        answer = await call
    except grpc.RpcError as error:
        return read(error)
    raise AssertionError(f"it was answered: {answer!r}")
