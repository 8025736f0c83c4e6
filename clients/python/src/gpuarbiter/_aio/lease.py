"""A lease as its holder sees it.

Law: leaving the with-block gives the lease back within a bounded time, whatever happens, and never hides
the exception of the body.
"""

import logging
from datetime import timedelta
from types import TracebackType
from typing import Self

from gpuarbiter import _clock, _convert
from gpuarbiter._aio import backend
from gpuarbiter._aio.asking import FIRST_PAUSE_SECONDS, AsyncGrant
from gpuarbiter._aio.connection import AsyncConnection
from gpuarbiter._aio.keeper import AsyncKeeper
from gpuarbiter._aio.notices import AsyncNotices
from gpuarbiter._errors import ArbiterError, LeaseLost
from gpuarbiter._record import LeaseRecord
from gpuarbiter._reporting import report_of
from gpuarbiter._units import Duration, Size, parse_bytes, parse_duration
from gpuarbiter._values import GrantedGpu, Released, WorkReport, YieldRequest
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import lease_pb2

logger = logging.getLogger("gpuarbiter")

RELEASE_SECONDS = 5.0
_LOST_RELEASE_SECONDS = 1.0


class AsyncLease:
    """The right to use one or more GPUs, until it is released, ends by a rule, or is lost.

    Made by `AsyncArbiter.lease` and `AsyncArbiter.acquire`; a context manager that releases on exit.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        request: pb.AcquireRequest,
        grant: AsyncGrant,
        notices: AsyncNotices,
    ) -> None:
        self._connection = connection
        self._record = LeaseRecord(grant.lease, grant.counted_from)
        self._notices = notices
        self._keeper = AsyncKeeper(connection, request, self._record, notices, grant.stream)
        self._granted_at = _clock.now()
        self._report: WorkReport | None = None
        notices.lease = self
        self._keeper.start()

    # -- what was granted ------------------------------------------------------------------------

    @property
    def message(self) -> lease_pb2.Lease:
        """The lease as the arbiter last described it: the protobuf message."""
        return self._record.lease

    @property
    def lease_id(self) -> str:
        """Unique for ever."""
        return self.message.lease_id

    @property
    def fencing_token(self) -> int:
        """Strictly increasing over all grants: hand it to whatever the lease protects."""
        return self.message.fencing_token

    @property
    def request_id(self) -> str:
        """The idempotency key of the request."""
        return self.message.request_id

    @property
    def task_type(self) -> str:
        """The task type whose policy applies."""
        return self.message.task_type

    @property
    def gpus(self) -> tuple[GrantedGpu, ...]:
        """The GPUs."""
        return _convert.granted_gpus(self.message)

    @property
    def visible_devices(self) -> str:
        """Ready to use as CUDA_VISIBLE_DEVICES."""
        return self.message.visible_devices

    @property
    def node(self) -> str:
        """The node whose GPUs these are."""
        return self.message.node

    @property
    def queue_wait(self) -> timedelta:
        """How long the request waited."""
        return self.message.queue_wait.ToTimedelta()

    @property
    def sharing(self) -> str:
        """EXCLUSIVE or SHARED."""
        return _convert.enum_name(lease_pb2.Sharing, self.message.sharing)

    @property
    def priority(self) -> int:
        """0 to 100, higher first."""
        return self.message.priority

    @property
    def detached(self) -> bool:
        """It lives by its ttl alone, without a stream."""
        return self._keeper.detached

    # -- how it stands ---------------------------------------------------------------------------

    @property
    def hold_remaining(self) -> timedelta | None:
        """Time until the watchdog acts, by the own clock and on the careful side; None: without limit."""
        return _left(self._record.hold_deadline)

    @property
    def ttl_remaining(self) -> timedelta | None:
        """Time until it ends unless renewed, by the own clock and on the careful side; None: no ttl."""
        return _left(self._record.ttl_deadline)

    @property
    def yield_requested(self) -> YieldRequest | None:
        """The arbiter asks for the GPU; stands until the lease ends."""
        return self._record.yield_request

    @property
    def uncertain(self) -> bool:
        """The line to the arbiter is broken: the lease may or may not live on. This library tries to rejoin."""
        return self._record.uncertain

    @property
    def lost(self) -> bool:
        """It is no longer held, and not because it was released here: stop using the GPU."""
        return self._record.lost

    @property
    def lost_reason(self) -> str:
        """Why it was lost, such as "REVOKED", "TTL_EXPIRED" or "SUPERSEDED"; empty while it is not."""
        return self._record.lost_reason

    @property
    def lost_detail(self) -> str:
        """The same for people."""
        return self._record.lost_detail

    @property
    def released(self) -> Released | None:
        """How it ended, once that is known."""
        return self._record.released

    def check(self) -> None:
        """Does nothing while the lease is held; cheap enough for an inner loop.

        Raises:
            LeaseLost: it is not held any more.
        """
        if self._record.lost:
            detail = self.lost_detail
            raise LeaseLost(
                f"lease {self.lease_id} is lost: {self.lost_reason}{detail and f' ({detail})'}",
                reason=self.lost_reason,
            )
        if self._record.closed:
            raise LeaseLost(f"lease {self.lease_id} was released", reason="RELEASED")

    async def wait_yield(self, timeout: Duration | None = None) -> YieldRequest | None:  # noqa: ASYNC109 -- part of the API
        """Waits until the arbiter asks for the GPU; None when `timeout` passes first, or the lease is released.

        Raises:
            LeaseLost: the lease was lost meanwhile.
        """
        await self._notices.woken.wait(None if timeout is None else parse_duration(timeout).total_seconds())
        if self._record.lost:
            self.check()
        return self._record.yield_request

    # -- what the holder can do ------------------------------------------------------------------

    async def renew(self, extend_hold: Duration | None = None) -> None:
        """Shows that the holder is alive; with `extend_hold`, asks that hold_remaining be that long.

        Renewals for a ttl happen in the background anyway.

        Raises:
            LeaseLost: the lease is over.
            ArbiterError: the renewal failed.
        """
        await self._keeper.renew(extend_hold)

    async def resize(self, memory: Size | None = None, shared: bool | None = None) -> None:
        """Changes what is committed; what is None stays as it is.

        Raises:
            ResizeRefused: it would not be admitted now; nothing changed.
            LeaseLost: the lease is over.
            ArbiterError: the call failed.
        """
        sent = _clock.now()
        request = pb.ResizeRequest(
            lease_id=self.lease_id,
            fencing_token=self.fencing_token,
            memory_bytes=None if memory is None else parse_bytes(memory),
            sharing=_convert.sharing(shared),
        )
        reply = await self._keeper.call("Resize", request)
        self._record.changed(reply.lease, sent)

    def report(self, report: WorkReport) -> None:
        """Sets what is told about the work when the lease is released.

        Raises:
            ValueError, TypeError: it says something that cannot be told.
        """
        _convert.work_report(report)
        self._report = report

    async def release(self, report: WorkReport | None = None) -> Released:
        """Gives the lease back, within five seconds; a second time answers the same.

        Raises:
            ArbiterError: the arbiter did not take it. Its stream is closed all the same, so that the
                arbiter ends it by its grace or ttl.
        """
        return await backend.finish(self._release, report or self._report, RELEASE_SECONDS)

    async def _release(self, report: WorkReport | None, seconds: float) -> Released:
        self._record.close()
        try:
            if self._record.released is not None:
                return self._record.released
            if self.lost and not self._record.presumed:  # there is nothing to give back; another may have it
                return self._record.gave_back(Released(self.lost_reason, self._held(), already_ended=True))
            return self._record.gave_back(_convert.released(await self._ask_release(report, seconds)))
        finally:
            self._keeper.stop()
            await self._keeper.settle()

    async def _ask_release(self, report: WorkReport | None, seconds: float) -> pb.ReleaseResponse:
        request = pb.ReleaseRequest(
            lease_id=self.lease_id,
            fencing_token=self.fencing_token,
            report=None if report is None else _convert.work_report(report),
        )
        # A lease presumed lost is given back for the case that it is not; that is not worth waiting for.
        deadline = _clock.now() + (min(seconds, _LOST_RELEASE_SECONDS) if self.lost else seconds)
        while True:
            try:
                left = max(0.0, deadline - _clock.now())
                reply: pb.ReleaseResponse = await self._connection.unary("Release", request, seconds=left)
            except ArbiterError as failure:
                if not failure.transient or _clock.now() + FIRST_PAUSE_SECONDS >= deadline:
                    raise
            else:
                return reply
            await backend.sleep(FIRST_PAUSE_SECONDS)

    async def close(self, seconds: float | None = None) -> None:
        """Releases without raising; a detached lease is only left alone, to be found by its request_id."""
        if self.detached:
            self._record.close()
            self._keeper.stop()
            await self._keeper.settle()
        else:
            await self._leave(self._report, RELEASE_SECONDS if seconds is None else seconds)

    async def _leave(self, report: WorkReport | None, seconds: float) -> None:
        if self._record.closed:  # released already, or in vain
            return
        try:
            await backend.finish(self._release, report, seconds)
        except ArbiterError as failure:
            logger.warning("lease %s could not be released, and ends by itself: %s", self.lease_id, failure)
        except Exception:  # whatever it is, the body's own exception counts more
            logger.exception("lease %s could not be released, and ends by itself", self.lease_id)

    def _held(self) -> timedelta:
        return timedelta(seconds=_clock.now() - self._granted_at)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave(self._report or report_of(error, self._held()), RELEASE_SECONDS)


def _left(deadline: float | None) -> timedelta | None:
    return None if deadline is None else timedelta(seconds=max(0.0, deadline - _clock.now()))
