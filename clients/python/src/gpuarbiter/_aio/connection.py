"""The way to one arbiter: channel, credentials, the line for leases, and every failure turned into an ArbiterError.

Law: the channel is opened at the first call (in asyncio it belongs to the running loop); there is one. All leases
share one line at a time: who needs one while it is being opened waits for that one, and shares its failure. What was
left while a line broke is given back before anything is asked for over the next one.
"""

import threading
import weakref
from typing import Any

import grpc

from gpuarbiter import _address, _clock, _forks, _holder, _status
from gpuarbiter._aio import backend
from gpuarbiter._aio.line import AsyncLine
from gpuarbiter.v1 import admin_pb2_grpc, gpu_arbiter_pb2_grpc, lease_pb2

CALL_SECONDS = 10.0


class AsyncConnection:
    """One channel, and the calls over it."""

    def __init__(
        self,
        address: str | None,
        *,
        client_id: str | None,
        token: str | None,
        credentials: grpc.ChannelCredentials | None,
    ) -> None:
        self.target = _address.resolve(address)
        self._client_id = client_id
        self._token = token
        self._credentials = credentials
        self._attestation = ""
        self._lock = threading.Lock()
        self._channel: Any = None
        self._stubs: dict[type, Any] = {}
        self._line: AsyncLine | None = None
        self._streams: weakref.WeakSet[Any] = weakref.WeakSet()
        # One for each release that is asked for again in the background: raised when that is over.
        self._owed: set[backend.Event] = set()
        self.closed = False
        _forks.watch(self)

    def forked(self) -> None:
        """What there is stays the parent's."""
        _forks.leave_behind(self._channel, self._stubs)
        for each in tuple(self._streams):
            each.forked()
        self._lock = threading.Lock()
        self._channel, self._stubs, self._line, self._streams = None, {}, None, weakref.WeakSet()
        self._owed = set()

    def _stub(self, kind: type) -> Any:
        with self._lock:
            self._refuse_if_unusable()
            if self._channel is None:
                self._channel = backend.open_channel(self.target, _address.CHANNEL_OPTIONS, self._credentials)
            if kind not in self._stubs:
                self._stubs[kind] = kind(self._channel)
            return self._stubs[kind]

    def _refuse_if_unusable(self) -> None:
        if self.closed:
            raise RuntimeError("this Arbiter is closed")
        backend.refuse_after_fork()

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self._token}"),) if self._token else ()

    def stream(self, method: str, request: Any, *, seconds: float | None = None, admin: bool = False) -> Any:
        """Starts a call that answers with a stream; `seconds` bounds the whole of it."""
        stub = self._stub(admin_pb2_grpc.GpuArbiterAdminStub if admin else gpu_arbiter_pb2_grpc.GpuArbiterStub)
        call = getattr(stub, method)(request, metadata=self._metadata(), timeout=seconds)
        stream: backend.Stream[Any] = backend.Stream(call, self.target)
        self._streams.add(stream)
        return stream

    async def unary(self, method: str, request: Any, *, seconds: float = CALL_SECONDS, admin: bool = False) -> Any:
        """One call with one answer, within `seconds`.

        Raises:
            ArbiterError: the call failed.
        """
        stub = self._stub(admin_pb2_grpc.GpuArbiterAdminStub if admin else gpu_arbiter_pb2_grpc.GpuArbiterStub)
        try:
            return await getattr(stub, method)(request, metadata=self._metadata(), timeout=seconds)
        except backend.RpcError as failure:
            raise _status.from_rpc(failure, self.target) from failure

    async def line(self, seconds: float | None = None) -> AsyncLine:
        """The line for leases; opened, within so many seconds, if there is none.

        Raises:
            ArbiterError: there is none to be had, and no call was sent.
        """
        with self._lock:
            self._refuse_if_unusable()
            if self._line is None or self._line.over:
                self._line = AsyncLine(self)
            line = self._line
        await line.opened(CALL_SECONDS if seconds is None else seconds)
        return line

    @property
    def standing_line(self) -> AsyncLine | None:
        """The line for leases, where calls can be made over it at once."""
        line = self._line
        return line if line is not None and line.stands else None

    def owe(self, given_back: backend.Event) -> None:
        """A release is asked for again, until the event."""
        self._owed.add(given_back)

    def paid(self, given_back: backend.Event) -> None:
        """That is over."""
        self._owed.discard(given_back)

    async def all_given_back(self) -> None:
        """Waits for releases that are asked for again; that is bounded for each."""
        for given_back in tuple(self._owed):
            await given_back.wait(CALL_SECONDS)

    async def ask(self, kind: str, request: Any, *, seconds: float = CALL_SECONDS) -> Any:
        """A call about a lease, with one answer, within `seconds`; `kind` is its field in SessionRequest.

        Raises:
            ArbiterError: the call failed.
        """
        until = _clock.now() + seconds
        line = await self.line(seconds)
        return await line.ask(kind, request, max(0.0, until - _clock.now()))

    async def holder(self) -> lease_pb2.Holder:
        """Who asks. Attested anew each time, where a socket is there: a restarted arbiter knows no old ones."""
        path = _holder.attestation_socket(self.target)
        if path is not None:  # if nobody answers there, the last proof may still do
            self._attestation = await backend.blocking(_holder.read_attestation, path) or self._attestation
        return _holder.holder(self._client_id, attestation=self._attestation)

    async def close(self) -> None:
        """Closes the line and the channel; what still runs over them is cancelled."""
        with self._lock:
            self.closed = True
            channel, self._channel = self._channel, None
            line, self._line = self._line, None
            self._stubs.clear()
        if line is not None:
            await line.end()
        if channel is not None:
            await channel.close()
