"""Clients over one session each: how long a grant takes, and how long the GPU is idle between two holders."""

import itertools
import time

import grpc

from bench import handing
from bench.servers import Server
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import gpu_arbiter_pb2_grpc as bindings
from gpuarbiter.v1 import lease_pb2

_FIRST_GPU = lease_pb2.GpuRequest(candidates=["gpu:0"])
_lives = itertools.count(1)


class Client:
    """A session whose leases come one after another."""

    def __init__(self, channel: grpc.aio.Channel, gpu: lease_pb2.GpuRequest = _FIRST_GPU) -> None:
        self._stream = bindings.GpuArbiterStub(channel).Session()
        self._holder = lease_pb2.Holder(client_id=f"bench-{next(_lives)}")
        self._gpu = gpu
        self._calls = itertools.count(1)
        self._request_id = ""

    async def open(self) -> "Client":
        """Begins the session."""
        await self._stream.write(pb.SessionRequest(call_id=0, open=pb.SessionOpen(holder=self._holder)))
        await self._stream.read()
        return self

    async def acquire(self) -> None:
        """Returns once it is granted; skips what is still to be read of the lease before."""
        call = next(self._calls)
        self._request_id = f"r{call}"
        request = pb.AcquireRequest(request_id=self._request_id, task_type="BENCH", holder=self._holder, gpu=self._gpu)
        await self._stream.write(pb.SessionRequest(call_id=call, acquire=request))
        while (answer := await self._stream.read()).acquire.WhichOneof("event") != "granted":
            assert answer.WhichOneof("answer") in {"acquire", "release"}, answer

    async def send_release(self) -> None:
        """Gives it back; does not wait for the answers."""
        release = pb.ReleaseRequest(request_id=self._request_id)
        await self._stream.write(pb.SessionRequest(call_id=next(self._calls), release=release))

    async def release(self) -> None:
        """Gives it back; returns when the release and the lease's end are answered."""
        await self.send_release()
        answers = {(await self._stream.read()).WhichOneof("answer") for _ in range(2)}
        assert answers == {"acquire", "release"}, answers

    async def finish(self) -> None:
        """One more lease, whose end is waited for: then nothing that was sent is lost with the channel."""
        await self.acquire()
        await self.release()


async def grants(server: Server, count: int) -> list[float]:
    """Seconds from an acquire to its grant, with nobody else there."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        client = await Client(channel).open()
        times = []
        for number in range(20 + count):
            began = time.perf_counter()
            await client.acquire()
            if number >= 20:
                times.append(time.perf_counter() - began)
            await client.release()
        return times


async def hand_offs(server: Server, seconds: float) -> handing.HandOffs:
    """Among 16 clients, of one GPU."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        clients = [await Client(channel).open() for _ in range(handing.CLIENTS)]
        return await handing.observed(clients, seconds)
