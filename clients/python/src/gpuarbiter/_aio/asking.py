"""From the request to its answer: waiting in the queue.

Law: a request that its caller gives up on (cancelled, interrupted, a raising program) is taken back, so
that no GPU is granted to nobody. A wait goes on through a restart of the arbiter, by the same request_id.
"""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpuarbiter import _clock, _convert, _outcomes, _record
from gpuarbiter._aio import backend
from gpuarbiter._aio.connection import AsyncConnection
from gpuarbiter._errors import ArbiterError, ArbiterUnavailable, LeaseEnded
from gpuarbiter._values import Queued
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import lease_pb2

logger = logging.getLogger("gpuarbiter")

# How long a request that was waiting already asks again while the arbiter is away; a restart takes less.
OUTAGE_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 1.0
_WITHDRAW_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class AsyncGrant:
    """A lease that was granted, the moment from which to count it, and the stream that carries it."""

    lease: lease_pb2.Lease
    counted_from: float
    stream: "backend.Stream[pb.AcquireResponse]"


AsyncAnswer = AsyncGrant | _outcomes.Skipped | _outcomes.FallbackToCpu


class AsyncAsking:
    """One request on its way to an answer."""

    def __init__(
        self, connection: AsyncConnection, request: pb.AcquireRequest, on_queued: Callable[[Queued], Any] | None
    ) -> None:
        self._connection = connection
        self._request = request
        self._on_queued = on_queued
        self._queued = False
        self._sent = 0.0

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
        # Counted from the first sending: it cannot lie after the arbiter's enqueueing, joined or not.
        self._sent = _clock.now()
        broken_at: float | None = None
        pause = FIRST_PAUSE_SECONDS
        while True:
            was_queued, self._queued = self._queued, False
            try:
                return await self._ask()
            except ArbiterUnavailable as failure:
                if self._queued:  # by this very stream: a new outage begins
                    broken_at, pause = None, FIRST_PAUSE_SECONDS
                self._queued = was_queued or self._queued
                now = _clock.now()
                broken_at = now if broken_at is None else broken_at
                if not self._queued or now - broken_at >= OUTAGE_SECONDS:
                    raise
                logger.info("request %s: %s; asking again", self._request.request_id, failure)
            await backend.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _ask(self) -> AsyncAnswer:
        stream = self._connection.stream("Acquire", self._request)
        grant: AsyncGrant | None = None
        try:
            while (event := await stream.read()) is not None:
                kind = event.WhichOneof("event")
                if kind == "granted":
                    lease = event.granted.lease
                    wait = lease.queue_wait.ToTimedelta()
                    grant = AsyncGrant(lease, _record.grant_moment(self._sent, wait, _clock.now()), stream)
                    return grant
                if kind == "declined":
                    return _convert.declined(event.declined)
                if kind == "ended":
                    raise _joined_too_late(event.ended)
                if kind == "queued":
                    await self._tell(event.queued)
            raise ArbiterUnavailable("the arbiter ended the stream without an answer")
        finally:
            if grant is None or self._request.detached:
                stream.cancel()

    async def _tell(self, message: pb.Queued) -> None:
        self._queued = True
        if self._on_queued is None:
            return
        try:
            await backend.call_back(self._on_queued, _convert.queued(message))
        except Exception:
            logger.exception("on_queued raised")

    async def _withdraw(self) -> None:
        # In vain when the arbiter is out of reach or the Arbiter closed; the request then ends with its stream.
        with contextlib.suppress(Exception):
            request = pb.ReleaseRequest(request_id=self._request.request_id)
            await self._connection.unary("Release", request, seconds=_WITHDRAW_SECONDS)


def _joined_too_late(ended: pb.Ended) -> LeaseEnded:
    reason = _convert.enum_name(lease_pb2.EndReason, ended.reason)
    return LeaseEnded(
        f"the lease of this request_id has ended: {ended.detail or reason}",
        reason="LEASE_ENDED",
        metadata={"end_reason": reason},
    )
