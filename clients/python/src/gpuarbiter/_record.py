"""What a holder knows of its lease: its state, as pure transitions.

Law: no I/O and no clock; the time of each event comes in, in seconds of `_clock.now()`. Every transition
is atomic and returns whether it changed anything, so that of several readers, renewers and releasers
each change is announced once. After `close`, nothing is lost any more: the holder itself gave it back.
"""

import threading
from datetime import timedelta

from gpuarbiter import _convert
from gpuarbiter._values import Released, YieldRequest
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import lease_pb2

# How long the arbiter keeps a lease whose stream broke (the policy's disconnect_grace, unless an operator
# changed it) when it has no ttl.
DISCONNECT_GRACE_SECONDS = 5.0


def grant_moment(first_sent: float, sent: float, waited: timedelta, received: float) -> float:
    """The latest moment that cannot lie after what a grant says of its lease: from here a careful holder counts.

    It was said after this sending, and after the wait that cannot have begun before the first one. A grant that
    arrived earlier than that allows is a lease that was joined: the wait lies in the past.
    """
    moment = first_sent + waited.total_seconds()
    return max(sent, moment) if moment <= received else sent


class LeaseRecord:
    """The state of one lease, from its grant on."""

    def __init__(self, lease: lease_pb2.Lease, counted_from: float) -> None:
        self._lock = threading.Lock()
        self.lease = lease
        self.yield_request: YieldRequest | None = None
        self.lost_reason = ""
        self.lost_detail = ""
        # Lost by the own clock only: the arbiter may hold it still.
        self.presumed = False
        self.released: Released | None = None
        self.closed = False
        self._broken_at: float | None = None
        self._count(lease, counted_from)

    def _count(self, message: lease_pb2.Lease | pb.RenewResponse, counted_from: float) -> None:
        hold = _convert.optional_timedelta(message, "hold_remaining")
        ttl = _convert.optional_timedelta(message, "ttl_remaining")
        self.hold_deadline = None if hold is None else counted_from + hold.total_seconds()
        self.ttl_deadline = None if ttl is None else counted_from + ttl.total_seconds()

    @property
    def lost(self) -> bool:
        """It ended, and not by this holder's own release."""
        return bool(self.lost_reason)

    @property
    def over(self) -> bool:
        """Nothing is left to follow: it is lost, or being given back."""
        return self.closed or self.lost

    @property
    def uncertain(self) -> bool:
        """The line to the arbiter is broken, and the lease may or may not live on."""
        return self._broken_at is not None and not self.over

    @property
    def give_up_at(self) -> float | None:
        """While uncertain: when the lease must be taken for lost."""
        broken_at = self._broken_at
        if broken_at is None:
            return None
        return broken_at + DISCONNECT_GRACE_SECONDS if self.ttl_deadline is None else self.ttl_deadline

    def renewed(self, reply: pb.RenewResponse, sent: float, now: float) -> bool:
        """A renewal was answered; True when it brought a yield request that was not known."""
        with self._lock:
            self._count(reply, sent)
        return reply.HasField("pending_yield") and self.yield_asked(reply.pending_yield, now)

    def changed(self, lease: lease_pb2.Lease, counted_from: float) -> None:
        """The arbiter described the lease anew."""
        with self._lock:
            self.lease = lease
            self._count(lease, counted_from)

    def mended(self) -> None:
        """The line stands again."""
        with self._lock:
            self._broken_at = None

    def yield_asked(self, message: pb.YieldRequested, now: float) -> bool:
        """The arbiter asks for the GPU; True when this says something new.

        A renewal repeats what the stream said, with less time left: that is no news.
        """
        asked = _convert.yield_request(message, now)
        with self._lock:
            known = self.yield_request
            if self.over:
                return False
            if known and known.reason == asked.reason and (known.grace is not None or asked.grace is None):
                return False
            self.yield_request = asked
            return True

    def broke(self, now: float) -> bool:
        """The line broke; True when it stood until now."""
        with self._lock:
            if self._broken_at is not None or self.over:
                return False
            self._broken_at = now
            return True

    def expired(self, now: float) -> bool:
        """Whether the time in which the lease could live on without the line is over."""
        give_up_at = self.give_up_at
        return give_up_at is not None and now >= give_up_at

    def ended(self, message: pb.Ended) -> bool:
        """The arbiter says that it ended; True when that is news to the holder."""
        released = _convert.released(message)
        with self._lock:
            # While it is being given back, the release has an answer of its own.
            if self.released is None and not self.closed:
                self.released = released
        return self.lose(released.reason or "ENDED", message.detail)

    def lose(self, reason: str, detail: str = "", *, presumed: bool = False) -> bool:
        """It is lost, or must be presumed so because the line is broken; True the first time."""
        with self._lock:
            if self.over:
                return False
            self.lost_reason = reason
            self.lost_detail = detail
            self.presumed = presumed
            return True

    def close(self) -> None:
        """The holder gives it back: from here on nothing is lost."""
        with self._lock:
            self.closed = True

    def disown(self) -> None:
        """It is another process's: nothing here may give it back. Takes no lock; nobody else is there."""
        self._lock = threading.Lock()
        self.closed = True
        self.released = self.released or Released("", timedelta(0), already_ended=True)

    def gave_back(self, released: Released) -> Released:
        """The release was answered; the first answer stands."""
        with self._lock:
            self.closed = True
            if self.released is None:
                self.released = released
            return self.released
