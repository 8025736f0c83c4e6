"""What a lease tells its holder: the same words in both clients.

Law: everything here is read from the record, at once and without a call.
"""

from datetime import timedelta

from gpuarbiter import _clock, _convert
from gpuarbiter._errors import LeaseLost
from gpuarbiter._record import LeaseRecord
from gpuarbiter._values import GrantedGpu, Released, YieldRequest
from gpuarbiter.v1 import lease_pb2


class LeaseFacts:
    """The facts of a lease."""

    _record: LeaseRecord

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
    def unmanaged(self) -> bool:
        """No arbiter stands behind it: it was out of reach, and `on_unavailable` is "proceed"."""
        return False

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
        """How it ended, once that is known: after a with-block not before the answer, for which `release` waits."""
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


def _left(deadline: float | None) -> timedelta | None:
    return None if deadline is None else timedelta(seconds=max(0.0, deadline - _clock.now()))
