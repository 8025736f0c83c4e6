"""Errors of the core as gRPC statuses: a code, a message, and google.rpc details for programs.

Details travel in the trailer `grpc-status-details-bin`; gRPC loses them beyond about 8 KiB, so the
message and the violations are cut before.
"""

from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from gpuarbiter.v1 import error_pb2
from gpuarbiter_server.core.errors import ArbiterError, ErrorReason

Context = grpc.aio.ServicerContext[Any, Any]

DOMAIN = "gpuarbiter"
_DETAILS = "grpc-status-details-bin"
_LONGEST_MESSAGE = 1024
_LONGEST_FACT = 256
_MOST_VIOLATIONS = 16

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
    message = duration_pb2.Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


async def abort(context: Context, error: ArbiterError) -> NoReturn:
    """Ends a call with an error."""
    trailer = ((_DETAILS, to_status(error).SerializeToString()),)
    await context.abort(CODES[error.reason], error.message[:_LONGEST_MESSAGE], trailer)
    raise AssertionError("abort raises")


def to_status(error: ArbiterError) -> status_pb2.Status:
    """The whole status: ErrorInfo, and RetryInfo and BadRequest where they apply."""
    status = status_pb2.Status(code=code_of(error), message=error.message[:_LONGEST_MESSAGE])
    metadata = {key: value[:_LONGEST_FACT] for key, value in error.metadata.items()}
    details = [error_details_pb2.ErrorInfo(reason=error.reason.name, domain=DOMAIN, metadata=metadata)]
    if error.retry_after is not None:
        details.append(error_details_pb2.RetryInfo(retry_delay=duration(error.retry_after)))
    if error.violations:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description[:_LONGEST_FACT])
            for v in error.violations[:_MOST_VIOLATIONS]
        ]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


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
