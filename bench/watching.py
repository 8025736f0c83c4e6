"""Watchers of Snapshot in a process of their own, of which every second one does not read.

Run as `python -m bench.watching TARGET COUNT`; says "ready" once each has a snapshot, goes on until it is ended.
"""

import asyncio
import sys

import grpc
import uvloop

from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import gpu_arbiter_pb2_grpc as bindings


async def _watch(stub: bindings.GpuArbiterStub, *, reads: bool, begun: asyncio.Semaphore) -> None:
    call = stub.Snapshot(pb.SnapshotRequest(watch=True))
    await call.read()
    begun.release()
    while reads:
        await call.read()
    await asyncio.get_running_loop().create_future()


async def main() -> None:
    """Watches."""
    count, begun = int(sys.argv[2]), asyncio.Semaphore(0)
    async with grpc.aio.insecure_channel(sys.argv[1]) as channel, asyncio.TaskGroup() as watchers:
        stub = bindings.GpuArbiterStub(channel)
        for number in range(count):
            watchers.create_task(_watch(stub, reads=number % 2 == 0, begun=begun))
        for _ in range(count):
            await begun.acquire()
        print("ready", flush=True)


if __name__ == "__main__":
    uvloop.run(main())
