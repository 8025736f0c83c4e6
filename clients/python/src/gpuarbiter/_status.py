"""A failed RPC, as an error of the tree.

Law: whatever the trailers hold, an ArbiterError comes out; details that cannot be decoded cost no more
than the details. The reason decides the class; without one the status code does.
"""

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from gpuarbiter._errors import BY_REASON, TRANSPORT_CODES, ArbiterError, ArbiterUnavailable, Unauthenticated, Violation

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


def _class_of(reason: str, code: str) -> type[ArbiterError]:
    if reason:
        return BY_REASON.get(reason, ArbiterError)
    if code in TRANSPORT_CODES:
        return ArbiterUnavailable
    # Proxies and interceptors refuse credentials before the arbiter could give a reason.
    return Unauthenticated if code == "UNAUTHENTICATED" else ArbiterError


# How gRPC words that it had no connection to send a call over.
_NO_CONNECTION = ("failed to connect to all addresses", "connections to all backends failing", "errors resolving")


def may_have_arrived(failure: ArbiterError) -> bool:
    """Whether the arbiter may have taken the call in although its answer never came: the line broke beneath it.

    Wordings that are not known count as yes: that costs time, where a no could cost a lease.
    """
    lost = failure.code in TRANSPORT_CODES and not failure.reason
    return lost and not any(words in failure.message for words in _NO_CONNECTION)


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
