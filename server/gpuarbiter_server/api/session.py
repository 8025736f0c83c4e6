"""A session: many calls over one stream, answered by call_id.

Events go to the core in the order in which the calls arrived, and answers come back in the order in
which the core gave them. When the client's side ends, in whatever way, each of its acquires fares as an
Acquire whose stream broke.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import replace
from itertools import count

import grpc

from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter_server.api.acquiring import is_last
from gpuarbiter_server.api.calls import Intake
from gpuarbiter_server.api.convert_out import Converter
from gpuarbiter_server.api.status import Context, abort, to_failure
from gpuarbiter_server.api.trace_context import trace_context_of
from gpuarbiter_server.api.wire import Undecodable, checked
from gpuarbiter_server.core import effects as fx
from gpuarbiter_server.core import events as ev
from gpuarbiter_server.core.errors import ArbiterError, Violation, invalid, unknown_lease
from gpuarbiter_server.core.events import Call, Caller
from gpuarbiter_server.core.model import EndReason, Holder
from gpuarbiter_server.runtime.about import About
from gpuarbiter_server.runtime.runtime import Runtime

# Ended acquires that a late cancel still finds.
_REMEMBERED = 1024
# Answers that may wait to be written before no more calls are read.
_MOST_UNWRITTEN = 1024
_EOF = grpc.aio.EOF  # type: ignore[attr-defined]
_numbers = count(1)


class _Acquire:
    """An acquire of the session that is not over."""

    __slots__ = ("call", "delivered", "granted", "lease_id", "queued")

    def __init__(self) -> None:
        self.call: Call = 0
        # Empty until it is granted.
        self.lease_id = ""
        self.delivered = False
        # What of it waits to be written: the latest Queued, and its Granted.
        self.queued: pb.SessionResponse | None = None
        self.granted: pb.SessionResponse | None = None


class Session:
    """One stream from its open to its end."""

    def __init__(
        self,
        context: Context,
        runtime: Runtime,
        intake: Intake,
        convert: Converter,
        about: About,
        caller: Caller,
    ) -> None:
        self._context = context
        self._runtime = runtime
        self._intake = intake
        self._convert = convert
        self._about = about
        self._caller = caller
        self._trace = trace_context_of(context)
        self._holder: Holder | None = None
        self._acquires: dict[int, _Acquire] = {}
        # Other calls that wait for their answer.
        self._open: set[int] = set()
        # Acquires that are over, with the lease that each had; empty where it had none.
        self._ended: OrderedDict[int, str] = OrderedDict()
        # Whose requests these are, of those that named another holder than the session's.
        self._other_holders: OrderedDict[str, str] = OrderedDict()
        # Detached acquires whose Granted is yet to be written; their calls are over for the client then.
        self._parting: set[_Acquire] = set()
        # Answers to write, and the acquire that each Queued and Granted belongs to.
        self._outbox: deque[tuple[pb.SessionResponse, _Acquire | None]] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._client_done = False

    async def run(self) -> None:
        """Serves the session to its end."""
        await self._expect_open()
        reader = asyncio.create_task(self._read())
        reader.add_done_callback(self._reader_ended)
        try:
            await self._write()
            error = reader.exception()
            if isinstance(error, ArbiterError):
                await abort(self._context, error)
            if error is not None:
                raise error
        finally:
            reader.cancel()
            self._drop_acquires()

    # -- in --

    async def _expect_open(self) -> None:
        """The first message must be open."""
        first = await self._context.read()
        try:
            if first is _EOF:
                raise invalid(Violation("open", "the session ended before its first message"))
            message = checked(first)
            if not isinstance(message, pb.SessionRequest) or message.WhichOneof("call") != "open":
                raise invalid(Violation("open", "must be the first message of a session"))
        except ArbiterError as error:
            await abort(self._context, error)
        self._holder = self._intake.holder(message.open)
        self._caller = Caller(self._caller.principal, self._caller.admin, self._holder.client_id)
        session_id = f"{self._about.instance_id}-s{next(_numbers):x}"
        opened = pb.SessionOpened(session_id=session_id, instance_id=self._about.instance_id, epoch=self._about.epoch)
        self._put(pb.SessionResponse(call_id=message.call_id, opened=opened))

    async def _read(self) -> None:
        """Takes calls until the client's side ends; ArbiterError for a message that cannot be decoded."""
        while True:
            while len(self._outbox) + len(self._open) > _MOST_UNWRITTEN:
                self._room.clear()
                await self._room.wait()
            message = await self._context.read()
            if message is _EOF:
                return
            if isinstance(message, Undecodable):
                checked(message)
            try:
                self._take(message)
            except ArbiterError as error:
                self._put(pb.SessionResponse(call_id=message.call_id, failure=to_failure(error)))

    def _reader_ended(self, task: "asyncio.Task[None]") -> None:
        """Nothing more comes from the client; what it asked before is answered still."""
        if not task.cancelled():
            task.exception()  # Looked at by run(), unless the stream broke before.
        self._client_done = True
        self._drop_acquires()
        self._wake.set()

    def _drop_acquires(self) -> None:
        """Each acquire fares as one whose stream broke; a Granted that was not written yet never will be."""
        dropped = {*self._acquires.values(), *self._parting}
        for acquire in dropped:
            self._runtime.close(acquire.call, delivered=acquire.delivered)
        self._outbox = deque(entry for entry in self._outbox if entry[1] not in dropped)
        self._acquires.clear()
        self._parting.clear()

    def _take(self, message: pb.SessionRequest) -> None:
        """One call."""
        call_id, kind = message.call_id, message.WhichOneof("call")
        if call_id in self._acquires or call_id in self._open:
            raise invalid(Violation("call_id", f"{call_id} is in use"))
        checked(message)
        if kind == "open":
            raise invalid(Violation("open", "the session is open already"))
        if kind == "acquire":
            self._acquire(call_id, message.acquire)
        elif kind == "cancel":
            self._cancel(call_id, message.cancel.acquire_call_id)
        else:
            make: Callable[..., ev.Event] = getattr(self._intake, kind)
            caller = self._caller
            if kind == "release" and message.release.request_id in self._other_holders:
                caller = replace(caller, client_id=self._other_holders[message.release.request_id])
            self._ask(call_id, lambda call: make(call, getattr(message, kind), caller), early=kind == "release")

    def _acquire(self, call_id: int, request: pb.AcquireRequest) -> None:
        who = self._intake.holder(request) if request.HasField("holder") else self._holder
        if who is None:
            raise invalid(Violation("acquire.holder", "must be given"))
        if request.request_id and self._holder is not None and who.client_id != self._holder.client_id:
            self._remember_holder(request.request_id, who.client_id)
        acquire = _Acquire()
        acquire.call = self._runtime.open(lambda effect: self._tell(call_id, acquire, effect))
        self._acquires[call_id] = acquire
        self._runtime.submit(self._intake.acquire(acquire.call, request, who, self._caller.principal, self._trace))

    def _remember_holder(self, request_id: str, client_id: str) -> None:
        """A request of this session that is not in its own client's name: a release by request_id means it."""
        self._other_holders[request_id] = client_id
        if len(self._other_holders) > _REMEMBERED:
            self._other_holders.popitem(last=False)

    def _cancel(self, call_id: int, acquire_call_id: int) -> None:
        acquire = self._acquires.get(acquire_call_id)
        if acquire is not None:
            running = acquire.call
            self._ask(call_id, lambda call: ev.CancelStream(call, running), early=True)
        elif acquire_call_id not in self._ended:
            raise unknown_lease(f"acquire call {acquire_call_id}")
        elif lease_id := self._ended[acquire_call_id]:
            # That of a detached acquire may live on.
            self._ask(call_id, lambda call: ev.Release(call, self._caller, lease_id))
        else:
            self._answer(call_id, fx.Released(0, EndReason.CANCELLED, held=0.0, already_ended=True))

    def _ask(self, call_id: int, make: Callable[[Call], ev.Event], *, early: bool = False) -> None:
        """A call with one answer; a release rides on the next commit, and is answered before."""
        self._open.add(call_id)
        self._runtime.submit(make(self._runtime.open(lambda effect: self._answer(call_id, effect), early=early)))

    # -- out --

    def _tell(self, call_id: int, acquire: _Acquire, effect: fx.Effect) -> None:
        """An event of an acquire."""
        if acquire in self._parting:
            return  # It has had its last one: the arbiter stops before that was written.
        if is_last(effect):
            self._close_acquire(call_id, acquire, effect)
        if isinstance(effect, fx.Failed):
            self._put(pb.SessionResponse(call_id=call_id, failure=to_failure(effect.error)))
            return
        response = pb.SessionResponse(call_id=call_id, acquire=self._convert.acquire(effect))
        if isinstance(effect, fx.Granted):
            acquire.granted, acquire.lease_id = response, effect.lease.lease_id
            self._put(response, acquire)
        elif not isinstance(effect, fx.Queued):
            self._put(response)
        elif acquire.queued is not None:
            # A client that does not read gets the latest, not a backlog.
            acquire.queued.CopyFrom(response)
        else:
            acquire.queued = response
            self._put(response, acquire)

    def _close_acquire(self, call_id: int, acquire: _Acquire, effect: fx.Effect) -> None:
        """The call of an acquire is closed; a detached one is not over before its Granted is written."""
        del self._acquires[call_id]
        if isinstance(effect, fx.Granted):
            self._parting.add(acquire)
            acquire.lease_id = effect.lease.lease_id
        # Of one that another stream took over nothing is left to take back here.
        self._ended[call_id] = "" if isinstance(effect, fx.Failed) else acquire.lease_id
        if len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)

    def _answer(self, call_id: int, effect: fx.Effect) -> None:
        """The answer of any other call."""
        self._open.discard(call_id)
        if isinstance(effect, fx.Failed):
            self._put(pb.SessionResponse(call_id=call_id, failure=to_failure(effect.error)))
        else:
            self._put(pb.SessionResponse(call_id=call_id, **self._convert.answer(effect)))

    def _put(self, response: pb.SessionResponse, acquire: _Acquire | None = None) -> None:
        self._outbox.append((response, acquire))
        self._wake.set()

    async def _write(self) -> None:
        """Writes answers until the client's side has ended and has all that it asked for."""
        while True:
            self._wake.clear()
            while self._outbox:
                response, acquire = self._outbox.popleft()
                if acquire is not None and response is acquire.queued:
                    acquire.queued = None
                granted = acquire if acquire is not None and response is acquire.granted else None
                if granted is not None:
                    # From here on the client may have it, whatever becomes of the write.
                    granted.delivered = True
                await self._context.write(response)
                self._room.set()
                if granted is not None:
                    self._delivered(granted)
            if self._client_done and not self._open:
                return
            await self._wake.wait()

    def _delivered(self, acquire: _Acquire) -> None:
        """A Granted is written."""
        if acquire in self._parting:
            self._parting.discard(acquire)
            self._runtime.close(acquire.call, delivered=True)
