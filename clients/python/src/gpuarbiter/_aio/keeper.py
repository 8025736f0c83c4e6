"""What happens behind a lease while it is held: its call followed, rejoined, and its ttl renewed.

Law: a holder is told when it can no longer believe in its lease. When the line breaks, the lease is
uncertain, and once its own time has passed by the own clock (the ttl from the sending of the last renewal,
otherwise the grace from the moment that the break was noticed) it is presumed lost.
"""

import logging
import threading
from datetime import timedelta
from typing import Any

from gpuarbiter import _clock, _convert
from gpuarbiter._aio import backend
from gpuarbiter._aio.acquire_call import AsyncAcquireCall, Told
from gpuarbiter._aio.asking import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS
from gpuarbiter._aio.connection import CALL_SECONDS, AsyncConnection
from gpuarbiter._aio.line import LineEnded
from gpuarbiter._aio.notices import AsyncNotices
from gpuarbiter._errors import (
    ArbiterError,
    ClientLimit,
    GpuUnavailable,
    Infeasible,
    LeaseEnded,
    LeaseLost,
    QueueFull,
    StaleToken,
    UnknownGpu,
    UnknownLease,
    WaitTimeout,
)
from gpuarbiter._record import LeaseRecord
from gpuarbiter._units import Duration
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import lease_pb2

logger = logging.getLogger("gpuarbiter")

# A ttl survives two lost renewals.
RENEWALS_PER_TTL = 3
_SETTLE_SECONDS = 1.0
_LONGEST_WATCH_SECONDS = 5.0
# What only a request that is new to the arbiter is told: it no longer knows the lease.
_TOLD_TO_NEW_REQUESTS = (WaitTimeout, QueueFull, ClientLimit, Infeasible, UnknownGpu, GpuUnavailable)
_UNKNOWN = "the arbiter does not know the lease any more"


class AsyncKeeper:
    """Keeps one lease, in the background."""

    def __init__(
        self,
        connection: AsyncConnection,
        request: pb.AcquireRequest,
        record: LeaseRecord,
        notices: AsyncNotices,
        call: AsyncAcquireCall,
    ) -> None:
        self._connection = connection
        self._record = record
        self._notices = notices
        self._call = call
        self._stopped = backend.Event()
        self._renewing: backend.Background | None = None
        self._rejoining: backend.Background | None = None
        self._joining = False
        self._sent = 0.0
        # Whether somebody watches how long the lease can be without a line.
        self._lock = threading.Lock()
        self._watching = False
        self.detached = request.detached
        # No wait: what would have to wait is another lease than ours, which is then lost.
        self._rejoin_request = pb.AcquireRequest()
        self._rejoin_request.CopyFrom(request)
        self._rejoin_request.busy_policy = lease_pb2.BUSY_POLICY_WAIT
        self._rejoin_request.max_wait.FromTimedelta(timedelta(0))
        self._rejoin_request.max_wait.SetInParent()

    def start(self) -> None:
        """Begins, right after the grant."""
        if not self.detached:
            self._call.listen(self._heard)
        ttl = self._record.lease.ttl.ToTimedelta()
        if ttl:
            self._renewing = backend.spawn(self._renew_always, ttl.total_seconds() / RENEWALS_PER_TTL)

    def stop(self) -> None:
        """Ends all of it; a lease that was not given back is, unless it is detached. The record is closed or lost."""
        self._stopped.set()
        if self._record.released is None:
            self._call.cancel()
        else:
            self._call.forget()
        self._notices.woken.set()

    async def settle(self) -> None:
        """Waits until all of it has ended, after `stop`."""
        await backend.settle([work for work in (self._renewing, self._rejoining) if work], _SETTLE_SECONDS)

    # -- the call --------------------------------------------------------------------------------

    def _heard(self, told: Told) -> None:
        """What the call tells, from where the line is read: nothing here may block, or raise."""
        try:
            if isinstance(told, pb.AcquireResponse):
                self._take(told)
            elif not self._settled(told):
                self._break(logging.INFO if isinstance(told, LineEnded) else logging.WARNING)
                self._rejoining = backend.spawn(self._rejoin)
        except Exception as error:  # noqa: BLE001 -- it is logged
            self._unfollowed(error)

    async def _rejoin(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        try:
            while not await self._stopped.wait(pause) and not await self._joined_again():
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        except Exception as error:  # noqa: BLE001 -- it is logged
            self._unfollowed(error)

    async def _joined_again(self) -> bool:
        """Asks for the lease anew; whether nothing is left to try: it is joined, or lost."""
        try:
            line = await self._connection.line()
            if self._stopped.is_set() or self._record.over:
                return True
            self._joining = True
            self._sent = _clock.now()
            self._call = line.acquire(self._rejoin_request)
            if self._stopped.is_set():  # it has ended the call before this one
                self._call.cancel()
                return True
            while self._joining and not self._record.over:
                self._take(await self._call.read())
        except ArbiterError as failure:
            return self._settled(failure)
        self._call.listen(self._heard)
        return True

    def _unfollowed(self, error: Exception) -> None:
        """A holder must not believe in a lease that nobody follows."""
        logger.error("lease %s: following it failed", self._record.lease.lease_id, exc_info=error)
        self._lose("UNFOLLOWED", str(error), presumed=True)
        self.stop()

    def _take(self, event: pb.AcquireResponse) -> None:
        kind = event.WhichOneof("event")
        if kind == "yield_requested":
            if self._record.yield_asked(event.yield_requested, _clock.now()):
                self._notices.yield_asked()
        elif kind == "ended":
            if self._record.ended(event.ended):
                self._notices.lost()
        elif self._joining and kind == "granted":
            self._joined(event.granted.lease)
        elif self._joining and kind in {"queued", "declined"}:
            # The arbiter began anew with this request_id: it no longer knows the lease.
            self._lose("NOT_RECOVERED", _UNKNOWN)
            backend.spawn(self._give_back, pb.ReleaseRequest(request_id=self._rejoin_request.request_id))

    def _joined(self, lease: lease_pb2.Lease) -> None:
        if lease.lease_id == self._record.lease.lease_id:
            self._joining = False
            self._record.changed(lease, self._sent)
            self._record.mended()
            logger.info("lease %s: joined again", lease.lease_id)
            return
        self._lose("NOT_RECOVERED", _UNKNOWN)
        backend.spawn(self._give_back, pb.ReleaseRequest(lease_id=lease.lease_id, fencing_token=lease.fencing_token))

    def _settled(self, failure: ArbiterError) -> bool:
        """Whether the lease is over after its call failed so; otherwise the line broke."""
        if isinstance(failure, _TOLD_TO_NEW_REQUESTS):
            self._lose("NOT_RECOVERED", f"{_UNKNOWN} ({failure.message})")
        elif failure.reason and not failure.transient:
            self._lose(end_reason(failure), failure.message)
        return self._record.over

    # -- the time that is left without a line ----------------------------------------------------

    def _break(self, level: int = logging.WARNING) -> None:
        with self._lock:
            broke = self._record.broke(_clock.now())
            watch, self._watching = broke and not self._watching, self._watching or broke
        if broke:
            logger.log(level, "lease %s: the line to the arbiter broke", self._record.lease.lease_id)
        if watch:
            backend.spawn(self._give_up_in_time)

    async def _give_up_in_time(self) -> None:
        """One at a time, however often the line breaks."""
        while (left := self._left_without_a_line()) is not None:
            if left <= 0:
                reason = "DISCONNECTED" if self._record.ttl_deadline is None else "TTL_EXPIRED"
                detail = "the arbiter was out of reach for longer than it keeps the lease"
                self._lose(reason, detail, presumed=True)
                self.stop()
            await self._stopped.wait(min(left, _LONGEST_WATCH_SECONDS))

    def _left_without_a_line(self) -> float | None:
        """Seconds until the lease is to be given up; None, and nobody watches any more, while the line stands."""
        with self._lock:
            give_up_at = self._record.give_up_at
            self._watching = self._record.uncertain and give_up_at is not None
            return give_up_at - _clock.now() if self._watching and give_up_at is not None else None

    def _lose(self, reason: str, detail: str, *, presumed: bool = False) -> None:
        if self._record.lose(reason, detail, presumed=presumed):
            self._notices.lost()

    async def _give_back(self, request: pb.ReleaseRequest) -> None:
        try:
            await self._connection.ask("release", request)
        except (ArbiterError, RuntimeError) as failure:  # RuntimeError: the Arbiter was closed
            logger.warning("a lease that nobody asked for could not be given back: %s", failure)

    # -- the ttl ---------------------------------------------------------------------------------

    async def renew(self, extend_hold: Duration | None = None, seconds: float = CALL_SECONDS) -> None:
        """Renews, within so many seconds; what a renewal tells is taken in.

        Raises:
            LeaseLost: the lease is over.
            ArbiterError: the renewal failed; the lease is what it was.
        """
        request = pb.RenewRequest(
            lease_id=self._record.lease.lease_id,
            fencing_token=self._record.lease.fencing_token,
            extend_hold=_convert.duration(extend_hold),
        )
        sent = _clock.now()
        reply = await self.ask("renew", request, seconds)
        if self._record.renewed(reply, sent, _clock.now()):
            self._notices.yield_asked()

    async def ask(self, kind: str, request: Any, seconds: float = CALL_SECONDS) -> Any:
        """A call about the lease; when the answer is that it is over, the holder learns that it is lost."""
        try:
            return await self._connection.ask(kind, request, seconds=seconds)
        except (LeaseEnded, UnknownLease, StaleToken) as failure:
            self._lose(end_reason(failure), failure.message)
            if isinstance(failure, LeaseLost):
                raise
            raise LeaseLost(failure.message, reason=failure.reason, code=failure.code) from failure

    async def _renew_always(self, interval: float) -> None:
        pause = interval
        while not await self._stopped.wait(pause) and not self._record.over:
            try:
                await self.renew(seconds=self._answer_within(max(interval, 1.0)))
            except RuntimeError:  # the Arbiter was closed
                return
            except ArbiterError as failure:
                pause = min(interval, LONGEST_PAUSE_SECONDS)
                logger.warning("lease %s: not renewed: %s", self._record.lease.lease_id, failure)
                if self.detached and failure.transient:
                    self._break()
            else:
                pause = interval
                if self.detached:
                    self._record.mended()

    def _answer_within(self, seconds: float) -> float:
        """A detached lease has nothing but its renewals: one that hangs must not hide that the ttl is over."""
        until = self._record.ttl_deadline
        return seconds if until is None or not self.detached else max(0.0, min(seconds, until - _clock.now()))


def end_reason(failure: ArbiterError) -> str:
    """Why the lease ended, where the arbiter says so; otherwise why the call failed."""
    return failure.metadata.get("end_reason") or failure.reason
