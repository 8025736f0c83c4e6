"""Acquire + release, one pair in flight, beside the bare floor: P1 (streams) and P2 (one session)."""

import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import grpc

from bench import loop
from bench.figures import spread, verdict
from bench.servers import Server, as_promised, floor
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import gpu_arbiter_pb2_grpc as bindings
from gpuarbiter.v1 import lease_pb2

_HOLDER = lease_pb2.Holder(client_id="bench")
Pair = Callable[[int], Awaitable[None]]


@dataclass(frozen=True)
class Sample:
    """One round against one server: seconds of wall time (median) and of the server's CPU, for one pair."""

    wall: float
    cpu: float


def _acquire(request_id: str) -> pb.AcquireRequest:
    return pb.AcquireRequest(request_id=request_id, task_type="BENCH", holder=_HOLDER)


@contextlib.asynccontextmanager
async def _streams(stub: bindings.GpuArbiterStub) -> AsyncIterator[Pair]:
    """A pair is an Acquire stream and a unary Release."""

    async def pair(number: int) -> None:
        stream = stub.Acquire(_acquire(f"stream-{number}"))
        granted = await stream.read()
        assert granted.WhichOneof("event") == "granted", granted
        await stub.Release(pb.ReleaseRequest(request_id=f"stream-{number}"))
        ended = await stream.read()
        assert ended.WhichOneof("event") == "ended", ended
        await stream.read()

    yield pair


@contextlib.asynccontextmanager
async def _session(stub: bindings.GpuArbiterStub) -> AsyncIterator[Pair]:
    """A pair is two messages on a session, each answered."""
    stream = stub.Session()
    await stream.write(pb.SessionRequest(call_id=0, open=pb.SessionOpen(holder=_HOLDER)))
    await stream.read()

    async def pair(number: int) -> None:
        acquire = pb.SessionRequest(call_id=2 * number + 1, acquire=_acquire(f"session-{number}"))
        await stream.write(acquire)
        granted = await stream.read()
        assert granted.acquire.WhichOneof("event") == "granted", granted
        release = pb.ReleaseRequest(request_id=f"session-{number}")
        await stream.write(pb.SessionRequest(call_id=2 * number + 2, release=release))
        answers = {(await stream.read()).WhichOneof("answer") for _ in range(2)}
        assert answers == {"acquire", "release"}, answers

    yield pair
    await stream.done_writing()


SHAPES = {"Acquire stream + Release": _streams, "Session": _session}
_TARGETS = {"Acquire stream + Release": ("P1", 1.5), "Session": ("P2", 1.6)}


async def measure(server: Server, shape: str, first: int, count: int) -> Sample:
    async with (
        grpc.aio.insecure_channel(server.target) as channel,
        SHAPES[shape](bindings.GpuArbiterStub(channel)) as pair,
    ):
        for number in range(first, first + 20):
            await pair(number)
        before = server.cpu_seconds()
        times = []
        for number in range(first + 20, first + 20 + count):
            began = time.perf_counter()
            await pair(number)
            times.append(time.perf_counter() - began)
        return Sample(statistics.median(times), (server.cpu_seconds() - before) / count)


def rows(*, quick: bool) -> list[tuple[str, ...]]:
    """A row for each shape: floor and arbiter, and the medians of their ratios over interleaved rounds."""
    rounds, count = (2, 50) if quick else (9, 400)
    table = []
    with floor() as bare, as_promised() as ours:
        for shape in SHAPES:
            pairs = []
            for turn in range(rounds):
                first = turn * (count + 20)
                pairs.append([loop.run(measure(server, shape, first, count)) for server in (bare, ours)])
            wall = [statistics.median(pair[side].wall for pair in pairs) * 1e6 for side in (0, 1)]
            cpu = [statistics.median(pair[side].cpu for pair in pairs) * 1e6 for side in (0, 1)]
            ratios = [ours_.cpu / bare_.cpu for bare_, ours_ in pairs]
            name, most = _TARGETS[shape]
            table.append(
                (
                    f"{name} {shape}: acquire + release, one in flight",
                    f"{wall[0]:.0f} µs, CPU {cpu[0]:.0f} µs",
                    f"{wall[1]:.0f} µs, CPU {cpu[1]:.0f} µs",
                    f"CPU {spread(ratios, 2)} ×; "
                    + verdict(f"at most {most} ×", passed=statistics.median(ratios) <= most),
                )
            )
    return table
