"""The arbiter of this node, as its clients call it."""

import weakref
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Self, Unpack

import grpc

from gpuarbiter import _clock, _convert, _settings, _values
from gpuarbiter._aio import backend
from gpuarbiter._aio.admin import AsyncAdmin
from gpuarbiter._aio.asking import AsyncAsking, AsyncGrant
from gpuarbiter._aio.connection import CALL_SECONDS, AsyncConnection
from gpuarbiter._aio.lease import RELEASE_SECONDS, AsyncLease
from gpuarbiter._aio.notices import AsyncNotices
from gpuarbiter._aio.options import AsyncLeaseOptions
from gpuarbiter._aio.running import AsyncRunning
from gpuarbiter._aio.unmanaged import AsyncUnmanagedLease
from gpuarbiter._errors import ArbiterError, ArbiterUnavailable
from gpuarbiter._options import refuse_unknown
from gpuarbiter._outage import Outage
from gpuarbiter._outcomes import Declined, FallbackToCpu, Skipped
from gpuarbiter._units import Duration
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import snapshot_pb2


class AsyncLeaseManager:
    """What `AsyncArbiter.lease` returns: asks on entering, releases on leaving. To be entered once at a time."""

    def __init__(self, arbiter: "AsyncArbiter", task_type: str, options: AsyncLeaseOptions) -> None:
        self._arbiter = arbiter
        self._task_type = task_type
        self._options = options
        self._lease: AsyncLease | None = None

    async def __aenter__(self) -> AsyncLease:
        if self._lease is not None:
            raise RuntimeError("this lease is entered already; ask for another one")
        outcome = await self._arbiter.acquire(self._task_type, **self._options)
        if isinstance(outcome, Declined):
            raise outcome
        self._lease = outcome
        return outcome

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            await lease.__aexit__(kind, error, trace)


class AsyncArbiter(AsyncRunning):
    """The arbiter of this node.

    Args:
        address: "host:port" or "unix:/path"; otherwise GPU_ARBITER_ADDRESS, otherwise 127.0.0.1:50051.
        client_id: a stable name of this program; one made of program, host and pid otherwise.
        token: a bearer token, where the arbiter asks for one; otherwise GPU_ARBITER_TOKEN.
        credentials: for TLS: what grpc.ssl_channel_credentials() makes.
        on_unavailable: when the arbiter cannot be reached, "fail", or "proceed" with a lease that is `unmanaged`:
            nobody keeps others off the GPU then. Otherwise GPU_ARBITER_ON_UNAVAILABLE, otherwise "fail".

    Raises:
        ValueError: the address is none, or on_unavailable neither of the two.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        client_id: str | None = None,
        token: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        on_unavailable: _settings.OnUnavailable | None = None,
    ) -> None:
        self._outage = Outage(_settings.on_unavailable(on_unavailable))
        self._connection = AsyncConnection(
            address, client_id=client_id, token=_settings.token(token), credentials=credentials
        )
        self._held: weakref.WeakSet[AsyncLease] = weakref.WeakSet()
        backend.close_at_exit(self)

    @property
    def address(self) -> str:
        """The gRPC target."""
        return self._connection.target

    @property
    def closed(self) -> bool:
        """`close` was called."""
        return self._connection.closed

    @property
    def admin(self) -> AsyncAdmin:
        """What operators can ask for."""
        return AsyncAdmin(self._connection)

    def lease(self, task_type: str, **options: Unpack[AsyncLeaseOptions]) -> AsyncLeaseManager:
        """A lease for the length of a with-block; the keywords are those of AsyncLeaseOptions.

        Entering it raises:
            Skipped, FallbackToCpu: no GPU could be had, and the busy policy is not to wait.
            WaitTimeout: max_wait passed.
            ArbiterUnavailable: the arbiter is out of reach.
            ArbiterError: it refused for another reason.
            ValueError, TypeError: a keyword says something that cannot be asked for.
        """
        refuse_unknown(options, AsyncLeaseOptions)
        return AsyncLeaseManager(self, task_type, options)

    async def acquire(
        self, task_type: str, **options: Unpack[AsyncLeaseOptions]
    ) -> AsyncLease | Skipped | FallbackToCpu:
        """As `lease`, but a decline is returned, for `match`; a lease that comes is to be released."""
        refuse_unknown(options, AsyncLeaseOptions)
        request = _convert.acquire_request(task_type, options)
        try:
            answer = await AsyncAsking(self._connection, request, options.get("on_queued")).answer()
        except ArbiterUnavailable as failure:
            if not self._outage.proceeds or self._connection.closed:
                raise
            self._outage.noticed(failure)
            return AsyncUnmanagedLease(request, await self._connection.holder())
        except ArbiterError:
            self._outage.over()
            raise
        self._outage.over()
        if not isinstance(answer, AsyncGrant):
            return answer
        notices = AsyncNotices(options.get("on_yield"), options.get("on_lost"))
        lease = AsyncLease(self._connection, request, answer, notices, self)
        self._held.add(lease)
        return lease

    async def release(
        self,
        *,
        lease_id: str | None = None,
        request_id: str | None = None,
        fencing_token: int = 0,
        report: _values.WorkReport | None = None,
    ) -> _values.Released:
        """Ends a lease, or takes a waiting request back, by its id. What has ended already is no error.

        Raises:
            UnknownLease: no such lease, and none that ended lately.
            StaleToken: the fencing token is not the lease's; nothing was released.
            ArbiterError: the call failed.
        """
        if (lease_id is None) == (request_id is None):
            raise ValueError("name either a lease_id or a request_id")
        request = pb.ReleaseRequest(
            lease_id=lease_id,
            request_id=request_id,
            fencing_token=fencing_token,
            report=None if report is None else _convert.work_report(report),
        )
        return _convert.released(await self._connection.unary("Release", request))

    async def check_fence(self, gpu: str, token: int) -> _values.Fence:
        """Whether a live lease on a GPU (key, index or UUID) has this fencing token."""
        reply = await self._connection.unary("CheckFence", pb.CheckFenceRequest(gpu=gpu, fencing_token=token))
        return _values.Fence(current=reply.current, newest_token=reply.newest_token)

    async def report_work(
        self,
        task_type: str,
        report: _values.WorkReport,
        *,
        context: _values.WorkContext | None = None,
        seconds: float = CALL_SECONDS,
    ) -> None:
        """Tells of work that had no lease, within so many seconds; `run` and `gpu_task` do it by themselves.

        Raises:
            ArbiterError: the call failed.
        """
        request = pb.ReportWorkRequest(
            task_type=task_type,
            holder=await self._connection.holder(),
            report=_convert.work_report(report),
            context=None if context is None else _convert.work_context(context),
        )
        await self._connection.unary("ReportWork", request, seconds=seconds)

    async def snapshot(
        self, gpus: Iterable[str] = (), *, processes: bool = False, max_tickets: int = 0
    ) -> snapshot_pb2.ArbiterSnapshot:
        """The state of the arbiter: the protobuf message ArbiterSnapshot. max_tickets 0: a hundred."""
        request = pb.SnapshotRequest(gpus=gpus, processes=processes, max_tickets=max_tickets)
        stream = self._connection.stream("Snapshot", request, seconds=CALL_SECONDS)
        try:
            reply = await stream.read()
        finally:
            stream.cancel()
        if reply is None:
            raise ArbiterUnavailable("the arbiter ended the stream without a snapshot")
        snapshot: snapshot_pb2.ArbiterSnapshot = reply.snapshot
        return snapshot

    async def watch(
        self,
        gpus: Iterable[str] = (),
        *,
        min_interval: Duration | None = None,
        processes: bool = False,
        max_tickets: int = 0,
    ) -> AsyncIterator[snapshot_pb2.ArbiterSnapshot]:
        """The state, and again whenever it changes, but not more often than `min_interval` (250 ms unless told).

        Raises:
            ArbiterUnavailable: the arbiter is, or went, out of reach.
        """
        request = pb.SnapshotRequest(
            gpus=gpus,
            watch=True,
            min_interval=_convert.duration(min_interval),
            processes=processes,
            max_tickets=max_tickets,
        )
        stream = self._connection.stream("Snapshot", request)
        try:
            while (reply := await stream.read()) is not None:
                yield reply.snapshot
        finally:
            stream.cancel()

    async def close(self) -> None:
        """Releases what is still held (detached leases excepted), and closes the channel."""
        deadline = _clock.now() + RELEASE_SECONDS
        try:
            for lease in self._leases():
                await lease.close(seconds=max(0.0, deadline - _clock.now()))
        finally:
            await self._connection.close()

    def _leases(self) -> tuple[AsyncLease, ...]:
        while True:
            try:
                return tuple(self._held)
            except RuntimeError:  # another thread has got a lease meanwhile
                continue

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
