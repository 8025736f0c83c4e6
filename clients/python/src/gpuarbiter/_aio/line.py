"""A line to the arbiter: one Session stream, over which every call about leases goes, answered by call_id.

Law: each call gets exactly one last answer: the arbiter's, or the failure that ended the line; after that nothing
is told of it any more. Before the arbiter has opened the session no call is sent; what was sent over a line that
broke may have arrived.
"""

import contextvars
import copy
import itertools
import logging
import threading
from collections.abc import Callable
from typing import Any, Protocol

from gpuarbiter import _clock, _status
from gpuarbiter._aio import backend
from gpuarbiter._aio.acquire_call import AsyncAcquireCall
from gpuarbiter._errors import ArbiterError, ArbiterUnavailable, InvalidRequest
from gpuarbiter._version import __version__
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import lease_pb2

logger = logging.getLogger("gpuarbiter")

_USER_AGENT = f"gpu-arbiter-client-python/{__version__}"
_SETTLE_SECONDS = 1.0
# How long a line may take to open before it is given up for another.
OPENING_SECONDS = 10.0
# What an arbiter takes; a larger message would end the session of all.
LARGEST_MESSAGE = 256 * 1024
# Where its loop ends, gRPC still has to say that the call is over; in the next loop it would be a traceback.
_FAREWELL_SECONDS = 0.02


class LineEnded(ArbiterUnavailable):
    """The line was ended here: its Arbiter was closed, or the program ends."""


class Dialler(Protocol):
    """What a line is opened through."""

    async def holder(self) -> lease_pb2.Holder:
        """Who asks, attested anew."""

    def stream(self, method: str, request: Any) -> "backend.Stream[pb.SessionResponse]":
        """Starts a call."""

    async def all_given_back(self) -> None:
        """Waits for what has to be asked for again since a line broke."""

    target: str


class AsyncLine:
    """One Session, from its opening to its end."""

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._calls: dict[int, Any] = {}
        self._outbox: backend.Mailbox[pb.SessionRequest] = backend.Mailbox()
        self._stream: backend.Stream[pb.SessionResponse] | None = None
        self._settled = backend.Event()
        self._began = _clock.now()
        self._failure: ArbiterError | None = None
        # The line outlives whoever needed it first: it must not run in the context of that one.
        self._reader = contextvars.Context().run(backend.spawn, self._run)

    @property
    def over(self) -> bool:
        """No call can be made over it any more."""
        return self._failure is not None

    @property
    def stands(self) -> bool:
        """Calls can be made over it at once."""
        return self._settled.is_set() and self._failure is None

    async def opened(self, seconds: float) -> None:
        """Waits until calls can be made.

        Raises:
            ArbiterError: the arbiter is out of reach, did not open the session in so many seconds, or refused to.
        """
        if not await self._settled.wait(seconds) and not self._settled.is_set():
            # Others may have more time for it.
            if _clock.now() - self._began >= OPENING_SECONDS:
                self._break(self._unanswered(OPENING_SECONDS))
            raise self._unanswered(seconds)
        if self._failure is not None:
            raise copy.copy(self._failure)

    def acquire(self, request: pb.AcquireRequest) -> AsyncAcquireCall:
        """Asks for a lease."""
        call_id = next(self._numbers)
        call = AsyncAcquireCall(self, call_id, detached=request.detached)
        self._send(call_id, "acquire", request, call)
        return call

    async def ask(self, kind: str, request: Any, seconds: float) -> Any:
        """A call with one answer, such as "release", within so many seconds.

        Raises:
            ArbiterError: it failed, or the line broke.
        """
        call_id = next(self._numbers)
        answers: backend.Mailbox[Any] = backend.Mailbox()
        self._send(call_id, kind, request, _Question(answers.put))
        try:
            answer = await answers.get(seconds)
        finally:
            self.forget(call_id)
        if answer is None:
            raise self._unanswered(seconds)
        if isinstance(answer, ArbiterError):
            raise answer
        return answer

    def tell(self, kind: str, request: Any, answered: Callable[[Any], None], sent: backend.Event) -> None:
        """A call that nobody waits for; `sent` is raised once it is in gRPC's hands.

        Its answer or failure is told from where the line is read: `answered` must not block.
        """
        self._send(next(self._numbers), kind, request, _Question(answered), sent)

    def send(self, kind: str, request: Any) -> None:
        """A call whose answer is of no interest."""
        self._send(next(self._numbers), kind, request, None)

    def forget(self, call_id: int) -> bool:
        """Nothing more is told of a call; whether it was not over."""
        with self._lock:
            return self._calls.pop(call_id, None) is not None

    async def end(self) -> None:
        """Ends the line, in bounded time: what is still open fails."""
        self._break(LineEnded("this Arbiter was closed", code="CANCELLED"))
        await backend.settle([self._reader], _SETTLE_SECONDS)

    def _send(self, call_id: int, kind: str, request: Any, call: Any, sent: backend.Event | None = None) -> None:
        message = pb.SessionRequest(call_id=call_id, **{kind: request})
        refusal = _too_large(message)
        with self._lock:
            failure = refusal or self._failure
            if failure is None:
                if call is not None:
                    self._calls[call_id] = call
                self._outbox.put(message, sent)
        if failure is not None and call is not None:
            call.put(copy.copy(failure))

    async def _run(self) -> None:
        failure: ArbiterError = ArbiterUnavailable("the arbiter ended the session", code="UNAVAILABLE")
        try:
            opening = pb.SessionOpen(holder=await self._dialler.holder(), user_agent=_USER_AGENT)
            self.send("open", opening)
            stream = self._stream = self._dialler.stream("Session", self._outbox)
            if self.over:  # it was ended before there was something to cancel
                stream.cancel()
            while (answer := await stream.read()) is not None:
                self._take(answer)
        except ArbiterError as error:
            failure = self._broken(error)
        except Exception as error:
            if not self.over:
                logger.exception("the line to the arbiter failed")
            failure = ArbiterUnavailable(f"the line to the arbiter failed: {error}")
        except BaseException:  # so does asyncio.run with what is left
            failure = LineEnded("the line to the arbiter was cancelled", code="CANCELLED")
            self._break(failure)
            await self._dialler.all_given_back()
            await backend.sleep(_FAREWELL_SECONDS)
            raise
        finally:
            self._break(failure)

    def _take(self, answer: pb.SessionResponse) -> None:
        kind = answer.WhichOneof("answer")
        if not self._settled.is_set():  # the answer to the opening
            if kind == "failure":
                raise _status.from_failure(answer.failure)
            self._settled.set()
            return
        call = self._calls.get(answer.call_id)
        if call is None or kind is None:
            return
        told = _status.from_failure(answer.failure) if kind == "failure" else getattr(answer, kind)
        if call.is_last(told):
            self.forget(answer.call_id)
        _tell(call, told)

    def _broken(self, error: ArbiterError) -> ArbiterError:
        """What the calls are told: a reason that ended the session of all says nothing about any of them."""
        if not self._settled.is_set():
            return error
        return ArbiterUnavailable(f"the line to the arbiter broke: {error.message}", code="UNAVAILABLE")

    def _break(self, failure: ArbiterError) -> None:
        """The line is over; the first reason stands."""
        with self._lock:
            if self._failure is not None:
                return
            self._failure = failure
            calls, self._calls = tuple(self._calls.values()), {}
        self._outbox.close()
        if self._stream is not None:
            self._stream.cancel()
        self._settled.set()
        for call in calls:
            _tell(call, copy.copy(failure))

    def _unanswered(self, seconds: float) -> ArbiterUnavailable:
        return ArbiterUnavailable(
            f"the arbiter at {self._dialler.target} did not answer within {seconds:g} s", code="DEADLINE_EXCEEDED"
        )


def _tell(call: Any, told: Any) -> None:
    """One that fails to listen is not to keep the others from being told."""
    try:
        call.put(told)
    except Exception:
        logger.exception("a call about a lease could not be told what came of it")


def _too_large(message: pb.SessionRequest) -> InvalidRequest | None:
    size = message.ByteSize()
    if size <= LARGEST_MESSAGE:
        return None
    why = f"the request has {size} bytes, at most {LARGEST_MESSAGE} are allowed"
    return InvalidRequest(why, reason="INVALID_REQUEST", code="INVALID_ARGUMENT")


class _Question:
    """A call with one answer."""

    def __init__(self, put: Callable[[Any], None]) -> None:
        # Answers it.
        self.put = put

    @staticmethod
    def is_last(_told: Any) -> bool:
        """Always."""
        return True
