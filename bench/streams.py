"""Clients with an Acquire stream and a unary Release for each lease."""

import itertools

import grpc

from bench import handing
from bench.servers import Server
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import gpu_arbiter_pb2_grpc as bindings
from gpuarbiter.v1 import lease_pb2

_FIRST_GPU = lease_pb2.GpuRequest(candidates=["gpu:0"])
_requests = itertools.count(1)


class Client:
    """Leases that come one after another, each over a stream of its own."""

    def __init__(self, channel: grpc.aio.Channel, *, priority: int | None = None) -> None:
        self._stub = bindings.GpuArbiterStub(channel)
        self._holder = lease_pb2.Holder(client_id=f"bench-{next(_requests)}")
        self._priority = priority

    async def acquire(self) -> None:
        """Returns once it is granted."""
        self._request_id = f"held-{next(_requests)}"
        self._stream = self._stub.Acquire(
            pb.AcquireRequest(
                request_id=self._request_id,
                task_type="BENCH",
                holder=self._holder,
                gpu=_FIRST_GPU,
                priority=self._priority,
            )
        )
        while (kind := (await self._stream.read()).WhichOneof("event")) != "granted":
            assert kind == "queued", kind

    async def release(self) -> None:
        """Gives it back; returns when the release is answered and the stream has ended."""
        await self._stub.Release(pb.ReleaseRequest(request_id=self._request_id))
        while await self._stream.read() is not grpc.aio.EOF:
            pass


async def hand_offs(server: Server, seconds: float, *, priority: int | None = None) -> handing.HandOffs:
    """Among 16 clients, of one GPU."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        clients = [Client(channel, priority=priority) for _ in range(handing.CLIENTS)]
        return await handing.observed(clients, seconds)
