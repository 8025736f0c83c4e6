"""The Session of the scripted arbiter: its Acquire and its other calls, over one stream.

Each call runs in a thread of its own and sees a context that ends only that call, as a real arbiter's failure does.
A script that stops in the middle of its call takes the whole session along: the line broke.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Protocol

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.rpc import error_details_pb2, status_pb2

from gpuarbiter.v1 import error_pb2, lease_pb2
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb

# The field of a call in SessionRequest, and the name of the same call by itself.
UNARY = {"release": "Release", "renew": "Renew", "resize": "Resize", "report_work": "ReportWork"}

# The number of a reason that this contract does not know yet.
FROM_THE_FUTURE = 99
_REASONS = dict(error_pb2.ErrorReason.items())


class Scripts(Protocol):
    """What a session needs of the arbiter."""

    Acquire: Callable[[pb.AcquireRequest, Any], Iterator[pb.AcquireResponse]]
    note: Callable[[str, Any, Any], None]
    # The kinds of all calls of sessions, in the order of their arrival.
    arrived: list[str]
    # Called at the opening; what it raises refuses the session.
    refuse_session: Callable[[Any], Any] | None


class _AbortedError(Exception):
    """A call was ended with a failure."""

    def __init__(self, failure: error_pb2.Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class CallContext:
    """Stands for grpc.ServicerContext, for one call of a session."""

    def __init__(self, session: grpc.ServicerContext) -> None:
        self._session = session
        self._callbacks: list[Callable[[], object]] = []
        self._lock = threading.Lock()
        self._ended = False

    def invocation_metadata(self) -> Any:
        """That of the session."""
        return self._session.invocation_metadata()

    def add_callback(self, callback: Callable[[], object]) -> bool:
        """Called when the call has ended."""
        with self._lock:
            self._callbacks.append(callback)
        return True

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """Ends the call."""
        raise _AbortedError(error_pb2.Failure(code=code.value[0], message=details))

    def abort_with_status(self, status: Any) -> NoReturn:
        """Ends the call, with details."""
        rich = status_pb2.Status.FromString(dict(status.trailing_metadata)["grpc-status-details-bin"])
        failure = error_pb2.Failure(code=rich.code, message=rich.message)
        for packed in rich.details:
            _unpack(packed, failure)
        raise _AbortedError(failure)

    @property
    def ended(self) -> bool:
        """The call has ended."""
        return self._ended

    def end(self) -> None:
        """Has it ended."""
        with self._lock:
            callbacks, self._callbacks = self._callbacks, []
            self._ended = True
        for each in callbacks:
            each()


def _unpack(packed: Packed, failure: error_pb2.Failure) -> None:
    info, retry, bad = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
    if packed.Unpack(info):
        failure.reason = _REASONS.get(f"ERROR_REASON_{info.reason}", FROM_THE_FUTURE)
        failure.metadata.update(info.metadata)
    elif packed.Unpack(retry):
        failure.retry_after.CopyFrom(retry.retry_delay)
    elif packed.Unpack(bad):
        for each in bad.field_violations:
            failure.violations.add(field=each.field, description=each.description)


class ScriptedSession:
    """One stream."""

    def __init__(self, arbiter: Scripts, requests: Iterator[pb.SessionRequest], context: grpc.ServicerContext) -> None:
        self._arbiter = arbiter
        self._requests = requests
        self._context = context
        self._holder = lease_pb2.Holder()
        self._answers: queue.SimpleQueue[pb.SessionResponse | None] = queue.SimpleQueue()
        self._acquires: dict[int, CallContext] = {}

    def run(self) -> Iterator[pb.SessionResponse]:
        """What it answers."""
        threading.Thread(target=self._read, daemon=True).start()
        try:
            while (answer := self._answers.get()) is not None:
                yield answer
        finally:
            self._break()

    def _read(self) -> None:
        try:
            for message in self._requests:
                kind = message.WhichOneof("call")
                self._arbiter.arrived.append(kind)
                threading.Thread(target=self._serve, args=(message, kind), daemon=True).start()
        except Exception:  # noqa: BLE001 -- the stream was cut, which is one way for it to end
            pass
        finally:
            self._break()

    def _break(self) -> None:
        self._answers.put(None)
        for each in tuple(self._acquires.values()):
            each.end()

    def _serve(self, message: pb.SessionRequest, kind: str) -> None:
        context = CallContext(self._context)
        try:
            if kind == "open":
                self._holder = message.open.holder
                self._arbiter.note("Session", message.open, context)
                if self._arbiter.refuse_session is not None:
                    self._arbiter.refuse_session(context)
                self._answer(message, opened=pb.SessionOpened(session_id="session-1"))
            elif kind == "acquire":
                self._acquire(message, context)
            elif kind == "cancel":
                self._arbiter.note("CancelAcquire", message.cancel, context)
                self._acquires[message.cancel.acquire_call_id].end()
                self._answer(message, release=pb.ReleaseResponse(reason=lease_pb2.END_REASON_CANCELLED))
            else:
                answer = getattr(self._arbiter, UNARY[kind])(getattr(message, kind), context)
                self._answer(message, **{kind: answer})
        except _AbortedError as ended:
            self._answer(message, failure=ended.failure)
            if kind == "open":
                self._break()
        except Exception as bug:  # noqa: BLE001 -- as gRPC answers it
            self._answer(message, failure=error_pb2.Failure(code=grpc.StatusCode.UNKNOWN.value[0], message=str(bug)))
        context.end()

    def _acquire(self, message: pb.SessionRequest, context: CallContext) -> None:
        self._acquires[message.call_id] = context
        request = message.acquire
        if not request.HasField("holder"):
            request.holder.CopyFrom(self._holder)
        last = {"ended", "declined", "granted" if request.detached else ""}
        for event in self._arbiter.Acquire(request, context):
            self._answer(message, acquire=event)
            if event.WhichOneof("event") in last:
                return
        if context.ended:
            code, reason = grpc.StatusCode.ABORTED.value[0], error_pb2.ERROR_REASON_CANCELLED
            raise _AbortedError(error_pb2.Failure(code=code, message="no", reason=reason))
        self._break()

    def _answer(self, message: pb.SessionRequest, **answer: Any) -> None:
        self._answers.put(pb.SessionResponse(call_id=message.call_id, **answer))
