"""From the request to its answer: waiting in the queue.

Law: a request that its caller gives up on (cancelled, interrupted, a raising program) is taken back, so
that no GPU is granted to nobody. One that the arbiter may have taken in, and whose line broke, is asked again
by the same request_id, through a restart of the arbiter too: it may be a lease by now. One that found nobody
to take it in fails at once.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from gpuarbiter import _clock, _convert, _outcomes, _record
from gpuarbiter._aio import backend
from gpuarbiter._aio.acquire_call import AsyncAcquireCall
from gpuarbiter._aio.connection import AsyncConnection
from gpuarbiter._errors import ArbiterError, ArbiterUnavailable, JournalUnavailable, LeaseEnded
from gpuarbiter._values import Queued
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import lease_pb2

logger = logging.getLogger("gpuarbiter")

# How long a request asks again while the arbiter is away, where its max_wait does not say; a restart takes less.
OUTAGE_SECONDS = 10.0
# However short its max_wait: it bounds the wait for a GPU, and what may have been granted is worth a moment more.
LEAST_OUTAGE_SECONDS = 2.0
FIRST_PAUSE_SECONDS = 0.1
# With gRPC's own pause (see CHANNEL_OPTIONS) this is how long after the arbiter's return it can take to be back.
LONGEST_PAUSE_SECONDS = 0.5
_WITHDRAW_SECONDS = 2.0
_LONGEST_WITHDRAW_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class AsyncGrant:
    """A lease that was granted, the moment from which to count it, and the call that carries it."""

    lease: lease_pb2.Lease
    counted_from: float
    call: AsyncAcquireCall


AsyncAnswer = AsyncGrant | _outcomes.Skipped | _outcomes.FallbackToCpu


class AsyncAsking:
    """One request on its way to an answer."""

    def __init__(
        self, connection: AsyncConnection, request: pb.AcquireRequest, on_queued: Callable[[Queued], Any] | None
    ) -> None:
        self._connection = connection
        self._request = request
        self._on_queued = on_queued
        # By the call of now, and by any so far.
        self._queued = False
        self._ever_queued = False
        # The call of now is on its way.
        self._sent = False
        self._first_sent = 0.0

    async def answer(self) -> AsyncAnswer:
        """The grant or the decline.

        Raises:
            ArbiterError: neither will come.
        """
        try:
            return await self._wait()
        except ArbiterError:
            raise
        except BaseException:
            await backend.finish(self._withdraw)
            raise

    async def _wait(self) -> AsyncAnswer:
        self._first_sent = _clock.now()
        pause, ask_until = FIRST_PAUSE_SECONDS, 0.0
        taken_in = False
        while True:
            self._queued = self._sent = False
            try:
                return await self._ask()
            except (ArbiterUnavailable, JournalUnavailable) as failure:
                now = _clock.now()
                if self._queued or not taken_in:  # until now there was no outage, or it was over
                    pause, ask_until = FIRST_PAUSE_SECONDS, self._ask_until(now)
                # What the arbiter gave as a reason was its answer; without one, it may have taken the request in.
                taken_in = taken_in or self._queued or (self._sent and not failure.reason)
                if not taken_in or now >= ask_until or self._connection.closed:
                    if taken_in and self._request.HasField("ttl"):  # it may become a lease of nobody's
                        backend.spawn(self._withdraw_later, self._request.ttl.ToTimedelta().total_seconds())
                    raise
                logger.info("request %s: %s; asking again", self._request.request_id, failure)
            await backend.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _ask_until(self, now: float) -> float:
        """How long an outage that begins now may last for this request."""
        if not self._request.HasField("max_wait"):
            return now + OUTAGE_SECONDS
        until = self._first_sent + self._request.max_wait.ToTimedelta().total_seconds()
        if not self._ever_queued:  # nobody has said that it waits
            until = min(until, now + OUTAGE_SECONDS)
        return max(until, now + LEAST_OUTAGE_SECONDS)

    async def _ask(self) -> AsyncAnswer:
        line = await self._connection.line()
        await self._connection.all_given_back()
        sent = _clock.now()
        call = line.acquire(self._request)
        self._sent = True
        try:
            while True:
                event = await call.read()
                kind = event.WhichOneof("event")
                if kind == "granted":
                    granted = event.granted.lease
                    return AsyncGrant(granted, self._counted_from(granted, sent), call)
                if kind == "declined":
                    return _convert.declined(event.declined)
                if kind == "ended":
                    raise _joined_too_late(event.ended)  # noqa: TRY301 -- as what read() raises
                if kind == "queued":
                    await self._tell(event.queued)
        except BaseException:
            call.forget()
            raise

    def _counted_from(self, lease: lease_pb2.Lease, sent: float) -> float:
        # Granted at once, or joined: then its queue_wait is that of long ago.
        waited = lease.queue_wait.ToTimedelta() if self._queued else timedelta(0)
        return _record.grant_moment(self._first_sent, sent, waited, _clock.now())

    async def _tell(self, message: pb.Queued) -> None:
        self._queued = self._ever_queued = True
        if self._on_queued is None:
            return
        try:
            await backend.call_back(self._on_queued, _convert.queued(message))
        except Exception:
            logger.exception("on_queued raised")

    async def _withdraw(self) -> None:
        # Where it cannot be now, the request ends by itself: soon after its line, or once its ttl is over.
        if not await self._withdrawn() and self._request.HasField("ttl"):
            backend.spawn(self._withdraw_later, self._request.ttl.ToTimedelta().total_seconds())

    async def _withdraw_later(self, seconds: float) -> None:
        until, pause = _clock.now() + seconds, LONGEST_PAUSE_SECONDS
        while _clock.now() < until and not self._connection.closed and not await self._withdrawn():
            await backend.sleep(pause)
            pause = min(2 * pause, _LONGEST_WITHDRAW_PAUSE_SECONDS)

    async def _withdrawn(self) -> bool:
        """Whether the arbiter has said what became of it."""
        request = pb.ReleaseRequest(request_id=self._request.request_id)
        try:
            await self._connection.ask("release", request, seconds=_WITHDRAW_SECONDS)
        except ArbiterError as failure:
            return not failure.transient
        except Exception:  # noqa: BLE001 -- the Arbiter was closed, or worse; what the caller raised counts
            return False
        return True


def _joined_too_late(ended: pb.Ended) -> LeaseEnded:
    reason = _convert.enum_name(lease_pb2.EndReason, ended.reason)
    return LeaseEnded(
        f"the lease of this request_id has ended: {ended.detail or reason}",
        reason="LEASE_ENDED",
        metadata={"end_reason": reason},
    )
