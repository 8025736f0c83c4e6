"""A lease as its holder sees it.

Law: leaving the with-block gives the lease back within a bounded time, whatever happens, and never hides
the exception of the body. It waits until the release is on its way, and not for the answer: the line keeps order, so
that whatever is asked for over it from then on comes after.
"""

import contextlib
import logging
from collections.abc import Iterator
from datetime import timedelta
from types import TracebackType
from typing import Self

from gpuarbiter import _clock, _convert, _forks
from gpuarbiter._aio import backend
from gpuarbiter._aio.asking import FIRST_PAUSE_SECONDS, AsyncGrant
from gpuarbiter._aio.connection import AsyncConnection
from gpuarbiter._aio.keeper import AsyncKeeper
from gpuarbiter._aio.line import AsyncLine
from gpuarbiter._aio.notices import AsyncNotices
from gpuarbiter._errors import ArbiterError
from gpuarbiter._facts import LeaseFacts
from gpuarbiter._record import LeaseRecord
from gpuarbiter._reporting import report_of, with_peak
from gpuarbiter._units import Duration, Size, parse_bytes, parse_duration
from gpuarbiter._values import Released, WorkReport, YieldRequest
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb

logger = logging.getLogger("gpuarbiter")

RELEASE_SECONDS = 5.0
_LOST_RELEASE_SECONDS = 1.0


class AsyncLease(LeaseFacts):
    """The right to use one or more GPUs, until it is released, ends by a rule, or is lost.

    Made by `AsyncArbiter.lease` and `AsyncArbiter.acquire`; a context manager that releases on exit.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        request: pb.AcquireRequest,
        grant: AsyncGrant,
        notices: AsyncNotices,
        arbiter: object,
    ) -> None:
        # It lives as long as there is something to give back, which it does at the end of the program.
        self._arbiter = arbiter
        self._connection = connection
        self._record = LeaseRecord(grant.lease, grant.counted_from)
        self._notices = notices
        self._keeper = AsyncKeeper(connection, request, self._record, notices, grant.call)
        self._granted_at = _clock.now()
        self._report: WorkReport | None = None
        self._peak_bytes = 0
        self._given_back = backend.Event()
        # Of a release that nobody waits for: what it asks, and that gRPC has it.
        self._parting: pb.ReleaseRequest | None = None
        self._sent = backend.Event()
        notices.lease = self
        _forks.watch(self)
        self._keeper.start()

    def forked(self) -> None:
        """The lease is the parent's: in the child it counts as given back, and nothing is asked for it."""
        self._record.disown()
        self._notices.forked()
        self._given_back = backend.Event()
        self._given_back.set()

    @property
    def detached(self) -> bool:
        """It lives by its ttl alone, without a stream."""
        return self._keeper.detached

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
        reply = await self._keeper.ask("resize", request)
        self._record.changed(reply.lease, sent)

    def report(self, report: WorkReport) -> None:
        """Sets what is told about the work when the lease is released.

        Raises:
            ValueError, TypeError: it says something that cannot be told.
        """
        _convert.work_report(report)
        self._report = report

    def note_peak(self, memory: Size) -> None:
        """Tells of device memory that was measured, per GPU; the highest goes into the report that names none itself.

        Raises:
            ValueError, TypeError: it is no size.
        """
        self._peak_bytes = max(self._peak_bytes, parse_bytes(memory))

    async def release(self, report: WorkReport | None = None) -> Released:
        """Gives the lease back, within five seconds; a second time answers the same.

        Raises:
            ArbiterError: the arbiter did not take it. Its stream is closed all the same, so that the
                arbiter ends it by its grace or ttl.
        """
        return await backend.finish(self._release, report or self._report, RELEASE_SECONDS)

    async def _release(self, report: WorkReport | None, seconds: float) -> Released:
        self._record.close()
        until = _clock.now() + seconds
        if self._parting is not None:  # that has an answer of its own
            await self._given_back.wait(seconds)
        try:
            if self._record.released is not None:
                return self._record.released
            if self.lost and not self._record.presumed:  # there is nothing to give back; another may have it
                return self._record.gave_back(Released(self.lost_reason, self._held(), already_ended=True))
            # A lease presumed lost is given back for the case that it is not; that is not worth waiting for.
            seconds = min(until - _clock.now(), _LOST_RELEASE_SECONDS if self.lost else seconds)
            return self._record.gave_back(_convert.released(await self._ask_release(self._request(report), seconds)))
        finally:
            self._end()
            await self._keeper.settle()

    def _end(self) -> None:
        self._sent.set()
        self._given_back.set()
        self._keeper.stop()

    def _request(self, report: WorkReport | None) -> pb.ReleaseRequest:
        report = with_peak(report, self._peak_bytes)
        return pb.ReleaseRequest(
            lease_id=self.lease_id,
            fencing_token=self.fencing_token,
            report=None if report is None else _convert.work_report(report),
        )

    async def _ask_release(
        self, request: pb.ReleaseRequest, seconds: float, *, aside: bool = False
    ) -> pb.ReleaseResponse:
        deadline = _clock.now() + seconds
        reply: pb.ReleaseResponse
        while True:
            try:
                left = max(0.0, deadline - _clock.now())
                if aside:
                    reply = await self._connection.unary("Release", request, seconds=left)
                else:
                    reply = await self._connection.ask("release", request, seconds=left)
            except ArbiterError as failure:
                if not failure.transient or _clock.now() + FIRST_PAUSE_SECONDS >= deadline:
                    raise
            else:
                return reply
            await backend.sleep(FIRST_PAUSE_SECONDS)

    async def close(self, seconds: float = RELEASE_SECONDS) -> None:
        """Releases without raising; a detached lease is only left alone, to be found by its request_id."""
        if self.detached:
            self._record.close()
            self._keeper.stop()
            await self._keeper.settle()
        elif self._record.closed:  # it is being given back over the line that is closed after this
            await self._given_back.wait(seconds)
        else:
            with self._logged():
                await backend.finish(self._release, self._report, seconds)

    async def _leave(self, report: WorkReport | None) -> None:
        if self._record.closed:  # released already, or in vain
            return
        with self._logged():
            line = self._way_out
            if line is None:
                await backend.finish(self._release, report, RELEASE_SECONDS)
            else:
                self._part(line, self._request(report))
                await self._sent.wait(RELEASE_SECONDS)

    @contextlib.contextmanager
    def _logged(self) -> Iterator[None]:
        try:
            yield
        except ArbiterError as failure:
            logger.warning("lease %s could not be released, and ends by itself: %s", self.lease_id, failure)
        except Exception:  # whatever it is, the body's own exception counts more
            logger.exception("lease %s could not be released, and ends by itself", self.lease_id)

    # -- the release that nobody waits for -------------------------------------------------------

    @property
    def _way_out(self) -> AsyncLine | None:
        """The line over which the release can be sent; None where it is worth waiting for."""
        return None if self.lost or self.uncertain or self.detached else self._connection.standing_line

    def _part(self, line: AsyncLine, request: pb.ReleaseRequest) -> None:
        self._parting = request
        self._record.close()
        line.tell("release", request, self._answered, self._sent)

    def _answered(self, told: pb.ReleaseResponse | ArbiterError) -> None:
        with self._logged():
            if isinstance(told, pb.ReleaseResponse):
                self._record.gave_back(_convert.released(told))
            elif told.transient and not self._connection.closed:
                self._connection.owe(self._given_back)
                backend.spawn(self._ask_again, self._parting)
                return
            else:
                raise told
        self._end()

    async def _ask_again(self, request: pb.ReleaseRequest) -> None:
        try:
            with self._logged():
                # By a call of its own: a loop that comes to its end can open no line any more.
                reply = await self._ask_release(request, RELEASE_SECONDS, aside=True)
                self._record.gave_back(_convert.released(reply))
        finally:
            self._end()
            self._connection.paid(self._given_back)

    def _held(self) -> timedelta:
        return timedelta(seconds=_clock.now() - self._granted_at)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave(self._report or report_of(error, self._held()))
