"""The library in both its forms, with the same few calls, for tests that try both on lines that go bad."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from gpuarbiter import Arbiter, AsyncArbiter, AsyncLease, Lease, Released

Queued = Callable[[Any], None]


class Asynchronous:
    """The asynchronous library."""

    def __init__(self, target: str, client_id: str) -> None:
        self._arbiter = AsyncArbiter(target, client_id=client_id)

    async def acquire(self, gpu: str, request_id: str, on_queued: Queued) -> AsyncLease:
        """An exclusive lease on this GPU, however long it takes."""
        lease = await self._arbiter.acquire(
            "LIBRARY", gpus=[gpu], request_id=request_id, max_hold=timedelta(0), max_wait=60, on_queued=on_queued
        )
        assert isinstance(lease, AsyncLease)
        return lease

    @staticmethod
    async def renew(lease: Any) -> None:
        await lease.renew()

    @staticmethod
    async def release(lease: Any) -> Released:
        released: Released = await lease.release()
        return released

    async def close(self) -> None:
        await self._arbiter.close()


class Synchronous:
    """The synchronous library, its calls on threads, so that one test drives both."""

    def __init__(self, target: str, client_id: str) -> None:
        self._arbiter = Arbiter(target, client_id=client_id)

    async def acquire(self, gpu: str, request_id: str, on_queued: Queued) -> Lease:
        """An exclusive lease on this GPU, however long it takes."""
        lease = await asyncio.to_thread(
            self._arbiter.acquire,
            "LIBRARY",
            gpus=[gpu],
            request_id=request_id,
            max_hold=timedelta(0),
            max_wait=60,
            on_queued=on_queued,
        )
        assert isinstance(lease, Lease)
        return lease

    @staticmethod
    async def renew(lease: Any) -> None:
        await asyncio.to_thread(lease.renew)

    @staticmethod
    async def release(lease: Any) -> Released:
        released: Released = await asyncio.to_thread(lease.release)
        return released

    async def close(self) -> None:
        await asyncio.to_thread(self._arbiter.close)


Library = Asynchronous | Synchronous
LIBRARIES: dict[str, type[Library]] = {"asynchronous": Asynchronous, "synchronous": Synchronous}
