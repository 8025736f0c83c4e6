"""The wait of `gpu-arbiter run` for a lease, which can take more than one request.

Law: who waits is not sent away for a reason that passes. A full queue is asked again, and so is an arbiter that went
away while it waited, for longer than one request of the library asks again. What bounds the wait bounds all of it;
where the policy bounds it, of which nothing is known here, there is one request only.
"""

import argparse
import time
import uuid
from collections.abc import Callable
from datetime import timedelta

from gpuarbiter import Arbiter, ArbiterUnavailable, ClientLimit, Declined, Lease, LeaseOptions, Queued, QueueFull
from gpuarbiter.cli.output import Messages

# The policy whose wait has no limit.
UNLIMITED_TASK = "RUN"
# Between two requests at most, whatever the arbiter says of its turns.
_LONGEST_PAUSE_SECONDS = 5.0
_LEAST_PAUSE_SECONDS = 0.1
_AWAY_PAUSE_SECONDS = 0.5


class Asking:
    """From the first request to the lease."""

    def __init__(self, arbiter: Arbiter, arguments: argparse.Namespace, messages: Messages) -> None:
        self._arbiter = arbiter
        self._task: str = arguments.task
        self._unlimited: bool = arguments.wait is None and arguments.task == UNLIMITED_TASK
        self._messages = messages
        self._wait: timedelta | None = arguments.wait
        self._deadline: float | None = None if self._wait is None else time.monotonic() + self._wait.total_seconds()
        self._away_seconds: float = arguments.ttl.total_seconds()
        # When the arbiter was last heard of by a request that waits; None: by none so far.
        self._heard_at: float | None = None

    def lease(self, options: LeaseOptions, cover: Callable[[str], None]) -> Lease:
        """The lease; `cover` hears of each request's id before it is made.

        Raises:
            ArbiterError: none can be had.
        """
        left = self._wait
        while True:
            request_id = str(uuid.uuid4())
            cover(request_id)
            once: LeaseOptions = {
                **options,
                "request_id": request_id,
                "max_wait": left,
                "on_queued": self._progress,
            }
            try:
                outcome = self._arbiter.acquire(self._task, **once)
            except (QueueFull, ClientLimit) as full:
                if not self._may_wait():
                    raise
                told = timedelta(0) if full.retry_after is None else full.retry_after
                seconds = min(max(told.total_seconds(), _LEAST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
                self._pause(seconds, f"asking again: {full}", full.reason)
            except ArbiterUnavailable as away:
                if not self._may_return():
                    raise
                self._pause(_AWAY_PAUSE_SECONDS, f"the arbiter is away, asking again: {away}", away.reason)
            else:
                if isinstance(outcome, Declined):
                    raise outcome
                return outcome
            left = self._left()

    def _left(self) -> timedelta | None:
        if self._deadline is None:
            return None
        return timedelta(seconds=max(0.0, self._deadline - time.monotonic()))

    def _may_wait(self) -> bool:
        if self._deadline is None:
            return self._unlimited
        return time.monotonic() < self._deadline

    def _may_return(self) -> bool:
        """Whether an arbiter that is out of reach is asked again: only by who waited there already."""
        heard = self._heard_at
        return heard is not None and self._may_wait() and time.monotonic() < heard + self._away_seconds

    def _pause(self, seconds: float, text: str, reason: str) -> None:
        self._messages.progress(f"waiting for a GPU: {text}", reason=reason)
        left = self._left()
        time.sleep(seconds if left is None else min(seconds, left.total_seconds()))

    def _progress(self, queued: Queued) -> None:
        self._heard_at = time.monotonic()
        where = f"waiting for a GPU: {queued.position} of {queued.queue_length}, {queued.reason}"
        self._messages.progress(
            f"{where} ({queued.detail})" if queued.detail else where,
            position=queued.position,
            queue_length=queued.queue_length,
            reason=queued.reason,
        )
