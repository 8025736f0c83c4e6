"""Errors of the core as gRPC statuses: a code, a message, and google.rpc details for programs.

Details travel in the trailer `grpc-status-details-bin`. Trailers of more than 8 KiB are lost, and the status
with them, so whatever clients can make long is cut before, by its size on the wire.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import grpc
from google.protobuf import duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from gpuarbiter.v1 import error_pb2
from gpuarbiter_server.core.errors import ArbiterError, ErrorReason

Context = grpc.aio.ServicerContext[Any, Any]

DOMAIN = "gpuarbiter"
_DETAILS = "grpc-status-details-bin"
# Bytes. The message travels twice: percent-encoded by itself, and in the details, which are in base64:
# 2048 + 4/3 * 3800 is some way below 8192.
_LONGEST_MESSAGE = 1024
_LONGEST_ENCODED_MESSAGE = 2048
_LONGEST_FACT = 256
_MOST_FACTS = 1500
_MOST_DETAILS = 3800
_PLAIN = frozenset(range(0x20, 0x7F)) - {ord("%")}

CODES: dict[ErrorReason, grpc.StatusCode] = {
    ErrorReason.UNSPECIFIED: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorReason.INVALID_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorReason.UNKNOWN_GPU: grpc.StatusCode.NOT_FOUND,
    ErrorReason.UNKNOWN_LEASE: grpc.StatusCode.NOT_FOUND,
    ErrorReason.INFEASIBLE: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorReason.QUEUE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorReason.CLIENT_LIMIT: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorReason.WAIT_TIMEOUT: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorReason.SHUTDOWN: grpc.StatusCode.UNAVAILABLE,
    ErrorReason.STALE_TOKEN: grpc.StatusCode.ABORTED,
    ErrorReason.REQUEST_ID_CONFLICT: grpc.StatusCode.ALREADY_EXISTS,
    ErrorReason.NOT_PERMITTED: grpc.StatusCode.PERMISSION_DENIED,
    ErrorReason.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    ErrorReason.JOURNAL_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    ErrorReason.GPU_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    ErrorReason.LEASE_ENDED: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorReason.RESIZE_REFUSED: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorReason.SUPERSEDED: grpc.StatusCode.ABORTED,
    ErrorReason.CANCELLED: grpc.StatusCode.ABORTED,
}


def code_of(error: ArbiterError) -> int:
    """The google.rpc.Code of an error."""
    number: int = code_pb2.Code.Value(CODES[error.reason].name)
    return number


def duration(seconds: float) -> duration_pb2.Duration:
    """Seconds as a Duration."""
    # Both parts of a Duration have one sign.
    whole, nanos = divmod(round(abs(seconds) * 1e9), 1_000_000_000)
    sign = -1 if seconds < 0 else 1
    return duration_pb2.Duration(seconds=sign * whole, nanos=sign * nanos)


# The number of an enum of the core's, which is that of the contract, for a field of a message.
number: Callable[[int], Any] = int


async def abort(context: Context, error: ArbiterError) -> NoReturn:
    """Ends a call with an error."""
    trailer = ((_DETAILS, to_status(error).SerializeToString()),)
    await context.abort(CODES[error.reason], _message(error), trailer)
    raise AssertionError("abort raises")


def to_status(error: ArbiterError) -> status_pb2.Status:
    """The whole status: ErrorInfo, and RetryInfo and BadRequest where they apply."""
    status = status_pb2.Status(code=code_of(error), message=_message(error))
    info = error_details_pb2.ErrorInfo(reason=error.reason.name, domain=DOMAIN)
    for key, value in error.metadata.items():
        if info.ByteSize() + len(key) + _LONGEST_FACT < _MOST_FACTS:
            info.metadata[key] = _cut(value, _LONGEST_FACT)
    status.details.add().Pack(info)
    if error.retry_after is not None:
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=duration(error.retry_after)))
    if error.violations:
        status.details.add().Pack(_bad_request(error, _MOST_DETAILS - status.ByteSize()))
    return status


def _bad_request(error: ArbiterError, room: int) -> error_details_pb2.BadRequest:
    """As many of the violations as fit into so many bytes; the first always does."""
    request = error_details_pb2.BadRequest()
    for violation in error.violations:
        if room < request.ByteSize() + 3 * _LONGEST_FACT:
            break
        request.field_violations.add(
            field=_cut(violation.field, _LONGEST_FACT), description=_cut(violation.description, _LONGEST_FACT)
        )
    return request


def _message(error: ArbiterError) -> str:
    """The message, as far as it fits."""
    text = _cut(error.message, _LONGEST_MESSAGE)
    while 12 * len(text) > _LONGEST_ENCODED_MESSAGE and _encoded_length(text) > _LONGEST_ENCODED_MESSAGE:
        text = text[: len(text) * 7 // 8]
    return text


def _encoded_length(text: str) -> int:
    """Bytes of a text in percent-encoding: whatever is no plain character takes three for each of its own."""
    return sum(1 if byte in _PLAIN else 3 for byte in text.encode())


def _cut(text: str, most: int) -> str:
    """The text, as far as it fits into so many bytes."""
    return text if len(text) * 4 <= most else text.encode()[:most].decode(errors="ignore")


def to_failure(error: ArbiterError) -> error_pb2.Failure:
    """The same facts for a call inside a session."""
    failure = error_pb2.Failure(
        code=code_of(error),
        message=error.message,
        reason=error_pb2.ErrorReason.Name(error.reason),
        metadata=error.metadata,
        violations=[
            error_pb2.Failure.FieldViolation(field=v.field, description=v.description) for v in error.violations
        ],
    )
    if error.retry_after is not None:
        failure.retry_after.CopyFrom(duration(error.retry_after))
    return failure
