"""A failed RPC, as an error of the tree.

Law: whatever the trailers hold, an ArbiterError comes out; details that cannot be decoded cost no more
than the details. The reason decides the class; without one the status code does.
"""

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from gpuarbiter._convert import enum_name
from gpuarbiter._errors import BY_REASON, TRANSPORT_CODES, ArbiterError, ArbiterUnavailable, Unauthenticated, Violation
from gpuarbiter.v1 import error_pb2

DOMAIN = "gpuarbiter"
DETAILS_KEY = "grpc-status-details-bin"

Trailers = Iterable[tuple[str, str | bytes]]


def from_rpc(failure: Any, target: str) -> ArbiterError:
    """The error for a grpc.RpcError of either world (both have code(), details() and trailing_metadata()).

    Without a reason of the arbiter's, the message names the target: gRPC's own does not always.
    """
    trailers: Callable[[], Trailers | None] = failure.trailing_metadata
    code, message = failure.code().name, failure.details() or ""
    error = from_status(code, message, trailers() or ())
    if isinstance(error, ArbiterUnavailable) and not error.reason:
        return ArbiterUnavailable(f"the arbiter at {target} cannot be reached: {message or code}", code=code)
    return error


def from_status(code: str, message: str, trailers: Trailers = ()) -> ArbiterError:
    """The error for a status: its code by name, its message and its trailing metadata."""
    reason = ""
    metadata: dict[str, str] = {}
    retry_after: timedelta | None = None
    violations: list[Violation] = []
    for detail in _details(trailers):
        if isinstance(detail, error_details_pb2.ErrorInfo) and detail.domain == DOMAIN:
            reason = detail.reason
            metadata = dict(detail.metadata)
        elif isinstance(detail, error_details_pb2.RetryInfo):
            retry_after = detail.retry_delay.ToTimedelta()
        elif isinstance(detail, error_details_pb2.BadRequest):
            violations += [Violation(each.field, each.description) for each in detail.field_violations]
    return _class_of(reason, code)(
        message or f"the call ended {code}",
        reason=reason,
        code=code,
        metadata=metadata,
        retry_after=retry_after,
        violations=violations,
    )


def from_failure(failure: error_pb2.Failure) -> ArbiterError:
    """The error for a call of a session that failed."""
    reason = enum_name(error_pb2.ErrorReason, failure.reason)
    code = code_pb2.Code.Name(failure.code) if failure.code in code_pb2.Code.values() else "UNKNOWN"
    return _class_of(reason, code)(
        failure.message or f"the call ended {code}",
        reason=reason,
        code=code,
        metadata=failure.metadata,
        retry_after=failure.retry_after.ToTimedelta() if failure.HasField("retry_after") else None,
        violations=[Violation(each.field, each.description) for each in failure.violations],
    )


def _class_of(reason: str, code: str) -> type[ArbiterError]:
    if reason:
        return BY_REASON.get(reason, ArbiterError)
    if code in TRANSPORT_CODES:
        return ArbiterUnavailable
    # Proxies and interceptors refuse credentials before the arbiter could give a reason.
    return Unauthenticated if code == "UNAUTHENTICATED" else ArbiterError


_KNOWN = (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo, error_details_pb2.BadRequest)


def _details(trailers: Trailers) -> Iterable[Any]:
    for key, value in trailers:
        if key != DETAILS_KEY or not isinstance(value, bytes):
            continue
        status = status_pb2.Status()
        try:
            status.ParseFromString(value)
        except DecodeError:
            continue
        for packed in status.details:
            for known in _KNOWN:
                if packed.Is(known.DESCRIPTOR):
                    detail = known()
                    try:
                        packed.Unpack(detail)
                    except DecodeError:
                        continue
                    yield detail
