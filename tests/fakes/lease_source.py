"""An arbiter that is none: leases on so many GPUs, first come first served, within the test's own loop."""

import asyncio
from collections.abc import Callable
from typing import Any, Unpack

from gpuarbiter import AsyncLeaseOptions, FallbackToCpu, Released, Skipped, WorkContext, WorkReport
from gpuarbiter._aio.running import AsyncRunning
from gpuarbiter._aio.unmanaged import AsyncUnmanagedLease
from gpuarbiter._convert import acquire_request
from gpuarbiter.v1 import lease_pb2

Answer = Skipped | FallbackToCpu | Exception


class FakeLease(AsyncUnmanagedLease):
    """A lease on one of the GPUs."""

    def __init__(self, source: "LeaseSource", task_type: str, options: AsyncLeaseOptions) -> None:
        asked: Any = {name: value for name, value in options.items() if not name.startswith("on_")}
        super().__init__(acquire_request(task_type, asked), lease_pb2.Holder(client_id="test"))
        self._source = source
        self._on_lost = options.get("on_lost")

    async def lose(self) -> None:
        """It is revoked."""
        self._record.lose("REVOKED")
        if self._on_lost is not None:
            await self._on_lost(self)

    async def _release(self, report: WorkReport | None, seconds: float) -> Released:
        self._source.reports.append(report)
        self._source.held.remove(self)
        self._source.free.release()
        return await super()._release(report, seconds)


class LeaseSource(AsyncRunning):
    """Grants, or answers as the test says: `answers` by task type, one for each request."""

    def __init__(self, gpus: int = 2) -> None:
        self.free = asyncio.Semaphore(gpus)
        self.held: list[FakeLease] = []
        self.asked: list[tuple[str, AsyncLeaseOptions]] = []
        self.reports: list[WorkReport | None] = []
        self.told: list[tuple[str, WorkReport, WorkContext | None]] = []
        self.answers: dict[str, list[Answer]] = {}
        self.granted: Callable[[FakeLease], object] = lambda _lease: None

    async def acquire(self, task_type: str, **options: Unpack[AsyncLeaseOptions]) -> Any:
        """A lease, once a GPU is free."""
        self.asked.append((task_type, options))
        answers = self.answers.get(task_type)
        if answers:
            answer = answers.pop(0)
            if isinstance(answer, (Skipped, FallbackToCpu)):
                return answer
            raise answer
        await self.free.acquire()
        lease = FakeLease(self, task_type, options)
        self.held.append(lease)
        self.granted(lease)
        return lease

    async def report_work(
        self, task_type: str, report: WorkReport, *, context: WorkContext | None = None, seconds: float = 1.0
    ) -> None:
        """Keeps it."""
        del seconds
        self.told.append((task_type, report, context))
