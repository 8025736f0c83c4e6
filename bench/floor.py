"""The floor: a bare grpc.aio + uvloop server that answers the shapes of the contract and does nothing.

Run as `python -m bench.floor ADDRESS [mutex]`; prints "ready" once it serves. As a mutex it grants to one after
another, in the order in which they came, and still does nothing else.
"""

import asyncio
import collections
import sys

import grpc
import uvloop

from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import gpu_arbiter_pb2_grpc as bindings
from gpuarbiter.v1 import lease_pb2, snapshot_pb2

QUEUED = pb.AcquireResponse(
    queued=pb.Queued(position=1, queue_length=1, reason=lease_pb2.WAIT_REASON_GPU_BUSY, detail="gpu:0 is held by bench")
)
GRANTED = pb.AcquireResponse(
    granted=pb.Granted(
        lease=lease_pb2.Lease(
            lease_id="6b0231a700000-7e448ec1544ba98f",
            fencing_token=1882514674155520,
            request_id="6411c79b-2",
            task_type="BENCH",
            holder=lease_pb2.Holder(client_id="bench"),
            gpus=[lease_pb2.GpuGrant(key="gpu:0", uuid="GPU-c6c79426-f118-5bb1-9658-e416b6898574")],
            visible_devices="GPU-c6c79426-f118-5bb1-9658-e416b6898574",
            node="node",
            principal="local",
        )
    )
)
ENDED = pb.AcquireResponse(ended=pb.Ended(reason=lease_pb2.END_REASON_RELEASED))
FENCE = pb.CheckFenceResponse(current=True, newest_token=1882514674155520)
RELEASED = pb.ReleaseResponse(reason=lease_pb2.END_REASON_RELEASED)


class Floor(bindings.GpuArbiterServicer):
    """Answers at once; keeps the order that a stream and its release have, and nothing else."""

    def __init__(self) -> None:
        self._held: dict[str, asyncio.Future[None]] = {}

    async def Acquire(self, request, context):  # noqa: N802, ANN001 -- the generated base's name
        """A stream: Granted, and after the release Ended."""
        done = asyncio.get_running_loop().create_future()
        self._held[request.request_id] = done
        await context.write(GRANTED)
        await done
        await context.write(ENDED)

    async def Release(self, request, _context):  # noqa: N802, ANN001 -- the generated base's name
        """The unary half of a pair."""
        self._held.pop(request.request_id).set_result(None)
        return RELEASED

    async def Session(self, _requests, context):  # noqa: N802, ANN001 -- the generated base's name
        """The same over one stream."""
        opened: dict[str, int] = {}
        while (message := await context.read()) is not grpc.aio.EOF:
            kind = message.WhichOneof("call")
            if kind == "acquire":
                opened[message.acquire.request_id] = message.call_id
                await context.write(pb.SessionResponse(call_id=message.call_id, acquire=GRANTED))
            elif kind == "release":
                await context.write(pb.SessionResponse(call_id=opened.pop(message.release.request_id), acquire=ENDED))
                await context.write(pb.SessionResponse(call_id=message.call_id, release=RELEASED))
            else:
                await context.write(pb.SessionResponse(call_id=message.call_id, opened=pb.SessionOpened()))

    async def CheckFence(self, _request, _context):  # noqa: N802, ANN001 -- the generated base's name
        """A small unary call."""
        return FENCE


class Mutex(Floor):
    """One at a time; the others wait on their streams, whose headers are out already."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: collections.deque[asyncio.Future[None]] = collections.deque()
        self._taken = False

    async def Acquire(self, request, context):  # noqa: N802, ANN001 -- the generated base's name
        """Queued where another has it, then as the floor."""
        if self._taken:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await context.write(QUEUED)
            await turn
        self._taken = True
        await super().Acquire(request, context)

    async def Release(self, request, context):  # noqa: N802, ANN001 -- the generated base's name
        """Hands it on."""
        # Who has gone meanwhile is not there to get it.
        turn = next((each for each in iter(self._next, None) if not each.done()), None)
        self._taken = turn is not None
        if turn is not None:
            turn.set_result(None)
        return await super().Release(request, context)

    def _next(self) -> "asyncio.Future[None] | None":
        return self._waiting.popleft() if self._waiting else None

    async def Snapshot(self, _request, context):  # noqa: N802, ANN001 -- the generated base's name
        """How many wait."""
        await context.write(pb.SnapshotResponse(snapshot=snapshot_pb2.ArbiterSnapshot(queue_length=len(self._waiting))))


async def main() -> None:
    """Serves until it is killed."""
    server = grpc.aio.server()
    bindings.add_GpuArbiterServicer_to_server(Mutex() if "mutex" in sys.argv else Floor(), server)
    server.add_insecure_port(sys.argv[1])
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main())
