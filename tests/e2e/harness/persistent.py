"""A bare client that follows its stream and joins again, by its request_id, whenever that breaks."""

import asyncio
from contextlib import suppress
from typing import Any

import grpc

from e2e.harness.client import acquire_request
from e2e.harness.waiting import PATIENCE_SECONDS
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import gpu_arbiter_pb2_grpc, lease_pb2
from support.refusals import Refusal, read

_AGAIN_SECONDS = 0.1
# As the library has them: an arbiter that says nothing is given up after two seconds.
_KEEPALIVE = (
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 1000),
    ("grpc.http2.ping_timeout_ms", 1000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
)


class Persistent:
    """One request, and the lease that it becomes."""

    def __init__(self, target: str, request_id: str, **fields: Any) -> None:
        self._channel = grpc.aio.insecure_channel(target, options=_KEEPALIVE)
        self._stub: Any = gpu_arbiter_pb2_grpc.GpuArbiterStub(self._channel)
        fields = {"client": request_id, "max_hold": 0, "max_wait": 600} | fields
        self._request = acquire_request(request_id=request_id, **fields)
        # Every lease and every end that it was told, in their order, and how its streams broke.
        self.leases: list[lease_pb2.Lease] = []
        self.ends: list[pb.Ended] = []
        self.breaks: list[Refusal] = []
        # Whether the stream of now has had an answer.
        self.stands = False
        self._news = asyncio.Condition()
        self._following = asyncio.ensure_future(self._follow())

    async def until_stands(self) -> None:
        """Waits until its stream has had an answer."""
        await self._until(lambda: self.stands)

    async def until_broken(self) -> None:
        """Waits until its stream is broken."""
        await self._until(lambda: not self.stands)

    async def granted(self) -> lease_pb2.Lease:
        """Waits for its first lease."""
        await self._until(lambda: self.leases)
        return self.leases[0]

    async def aclose(self) -> None:
        self._following.cancel()
        with suppress(asyncio.CancelledError):
            await self._following
        await self._channel.close()

    async def _until(self, condition: Any) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS), self._news:
            await self._news.wait_for(lambda: condition() or self._following.done())
        if self._following.done():
            await self._following

    async def _follow(self) -> None:
        while not self.ends:
            stream = self._stub.Acquire(self._request)
            try:
                while (message := await stream.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
                    await self._take(message)
            except grpc.RpcError as error:
                self.breaks.append(read(error))
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            finally:
                stream.cancel()
            await self._tell(stands=False)
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _take(self, message: pb.AcquireResponse) -> None:
        if message.HasField("granted"):
            self.leases.append(message.granted.lease)
        elif message.HasField("ended"):
            self.ends.append(message.ended)
        await self._tell(stands=True)

    async def _tell(self, *, stands: bool) -> None:
        async with self._news:
            self.stands = stands
            self._news.notify_all()
