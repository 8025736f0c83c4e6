"""What a client is told when its request gets no GPU.

Law: whoever may have more luck later gets a 503 that says when; what is wrong with the service itself is no answer
but an exception, which its server and its logs make of it what they make of others.
"""

import json
import math
from dataclasses import dataclass
from datetime import timedelta

from gpuarbiter._asgi.messages import WEBSOCKET, Scope, Send
from gpuarbiter._errors import (
    ArbiterError,
    ArbiterUnavailable,
    Infeasible,
    InvalidRequest,
    NotPermitted,
    RequestIdConflict,
    Unauthenticated,
    UnknownGpu,
)

STATUS = 503
# WebSocket's "Try again later".
_CLOSE_CODE = 1013
# What a close frame has room for.
_CLOSE_REASON_BYTES = 123
_LEAST_RETRY_SECONDS = 1
_WRONG_SERVICE = (InvalidRequest, UnknownGpu, Infeasible, NotPermitted, Unauthenticated, RequestIdConflict)
_HTTP_RESPONSE = "websocket.http.response"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no GPU, and when to come back."""

    reason: str
    detail: str
    retry_after_seconds: int

    def body(self, *, detailed: bool) -> bytes:
        """As application/problem+json (RFC 9457)."""
        problem = {"type": "about:blank", "title": "Service Unavailable", "status": STATUS, "reason": self.reason}
        return json.dumps(problem | {"detail": self.detail} if detailed else problem).encode()


def refusal_of(failure: ArbiterError) -> Refusal:
    """What to answer.

    Raises:
        ArbiterError: it is no answer to a client.
    """
    if isinstance(failure, _WRONG_SERVICE):
        raise failure
    if isinstance(failure, ArbiterUnavailable) and not failure.reason:
        # Its message names addresses of this machine.
        return Refusal("UNAVAILABLE", "the arbiter of the GPUs is out of reach", _seconds(failure.retry_after))
    return Refusal(failure.reason, failure.message, _seconds(failure.retry_after))


def _seconds(retry_after: timedelta | None) -> int:
    return max(_LEAST_RETRY_SECONDS, 0 if retry_after is None else math.ceil(retry_after.total_seconds()))


async def refuse(scope: Scope, send: Send, refusal: Refusal, *, detailed: bool, accepted: bool = False) -> None:
    """Answers a request, or closes a WebSocket (`accepted`: one that is open already)."""
    if scope["type"] != WEBSOCKET:
        await _respond(send, "http.response", refusal, detailed=detailed)
    elif not accepted and _HTTP_RESPONSE in (scope.get("extensions") or {}):
        await _respond(send, _HTTP_RESPONSE, refusal, detailed=detailed)
    else:
        words = f"{refusal.reason}: {refusal.detail}" if detailed else refusal.reason
        reason = words.encode()[:_CLOSE_REASON_BYTES].decode(errors="ignore")
        await send({"type": "websocket.close", "code": _CLOSE_CODE, "reason": reason})


async def _respond(send: Send, kind: str, refusal: Refusal, *, detailed: bool) -> None:
    body = refusal.body(detailed=detailed)
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", str(refusal.retry_after_seconds).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": f"{kind}.start", "status": STATUS, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
