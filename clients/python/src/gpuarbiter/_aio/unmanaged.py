"""The lease that comes when the arbiter cannot be reached and the program has said to proceed.

Law: it says what it is (`unmanaged`, no lease_id), it asks nobody for anything, and nothing about it can fail.
Whatever else uses the GPU is not known.
"""

import os

from gpuarbiter import _clock
from gpuarbiter._aio import backend
from gpuarbiter._aio.lease import AsyncLease
from gpuarbiter._aio.notices import AsyncNotices
from gpuarbiter._record import LeaseRecord
from gpuarbiter._units import Duration, Size, parse_bytes, parse_duration
from gpuarbiter._values import Released, WorkReport
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import lease_pb2


class AsyncUnmanagedLease(AsyncLease):
    """No lease, in the shape of one."""

    def __init__(self, request: pb.AcquireRequest, holder: lease_pb2.Holder) -> None:
        stand_in = lease_pb2.Lease(
            request_id=request.request_id,
            task_type=request.task_type,
            holder=holder,
            sharing=request.gpu.sharing,
            visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        )
        self._granted_at = _clock.now()
        self._record = LeaseRecord(stand_in, self._granted_at)
        self._notices = AsyncNotices(None, None)
        self._report: WorkReport | None = None
        self._peak_bytes = 0
        self._given_back = backend.Event()

    @property
    def unmanaged(self) -> bool:
        """Always."""
        return True

    @property
    def detached(self) -> bool:
        """Never."""
        return False

    async def renew(self, extend_hold: Duration | None = None) -> None:
        """Does nothing.

        Raises:
            LeaseLost: it was released.
            ValueError, TypeError: `extend_hold` is no duration.
        """
        if extend_hold is not None:
            parse_duration(extend_hold)
        self.check()

    async def resize(self, memory: Size | None = None, shared: bool | None = None) -> None:  # noqa: ARG002 -- as a lease
        """Does nothing.

        Raises:
            LeaseLost: it was released.
            ValueError, TypeError: `memory` is no size.
        """
        if memory is not None:
            parse_bytes(memory)
        self.check()

    @property
    def _way_out(self) -> None:
        """There is nobody to tell."""

    async def _release(self, _report: WorkReport | None, _seconds: float) -> Released:
        self._record.close()
        self._given_back.set()
        self._notices.woken.set()
        return self._record.gave_back(Released("", self._held(), already_ended=False))
