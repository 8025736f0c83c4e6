"""Thousands who wait on Acquire streams (P6): what each costs in memory, and what they do to the hand-offs of others.

The crowd is a process in C (h2load), and stands behind everybody else by its priority; the GPU goes from hand to hand
among sixteen clients before it. The arbiter has the whole queue to look after all the same, and tells everybody their
place every ten seconds.
"""

import asyncio
import contextlib
import itertools
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import grpc

from bench import loop, streams
from bench.drawing import Chart, draw
from bench.figures import Row, both, quantile, spread, verdict
from bench.loads import framed, h2load
from bench.servers import Server, as_promised, floor
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import gpu_arbiter_pb2_grpc as bindings
from gpuarbiter.v1 import lease_pb2

_PICTURE = Path(__file__).with_name("growth-streams.svg")
_SETTINGS = (
    "queue_limit=100000",
    "limits.waiting_per_client=0",
    "aging=0s",
    "cooldown=0s",
    "policies.BENCH={max_wait: 24h}",
)
# Those who hand it on, who keeps it between two rounds, and who never gets it.
_FRONT, _KEEPER, _CROWD = 90, 50, 10
_FEW = 100
_PER_CONNECTION = 100
# gRPC itself refuses calls that come faster than the server takes them: from a thousand on some, from three all.
_AT_ONCE = 500
_JOIN_SECONDS = 120.0
# The front has queued up by then.
_QUEUED_SECONDS = 0.15


class Queue:
    """A server whose queue grows, and whose GPU is kept from it."""

    def __init__(self, server: Server, channel: grpc.aio.Channel, crowd: contextlib.ExitStack) -> None:
        self._server = server
        self._stub = bindings.GpuArbiterStub(channel)
        self._keeper = streams.Client(channel, priority=_KEEPER)
        self._crowd = crowd
        self._waiting = 0
        self._empty_bytes = 0

    async def begin(self) -> None:
        """Takes the GPU."""
        await self._keeper.acquire()
        self._empty_bytes = self._server.resident_bytes()

    async def end(self) -> None:
        """Gives it back, so that the server need not wait for a holder when it stops."""
        await self._keeper.release()

    async def grow(self, waiting: int) -> None:
        """Returns once so many wait."""
        async with asyncio.timeout(_JOIN_SECONDS):
            while self._waiting < waiting:
                more = min(_AT_ONCE, waiting - self._waiting)
                self._join(more)
                self._waiting += more
                while await self._length() < self._waiting:  # noqa: ASYNC110 -- another process is asked
                    await asyncio.sleep(0.02)

    def _join(self, more: int) -> None:
        """So many more ask, until the end of the crowd."""
        holder = lease_pb2.Holder(client_id="crowd")
        request = pb.AcquireRequest(task_type="BENCH", holder=holder, priority=_CROWD)
        folder = self._crowd.enter_context(tempfile.TemporaryDirectory())
        body = Path(folder, "body")
        body.write_bytes(framed(request))
        size = ("-n", str(more), "-c", str(-(-more // _PER_CONNECTION)), "-m", str(_PER_CONNECTION))
        command = h2load(self._server, "Acquire", str(body), *size)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self._crowd.callback(process.wait, 20)
        self._crowd.callback(process.kill)

    def bytes_each(self) -> float:
        """What each of those who wait has cost."""
        return (self._server.resident_bytes() - self._empty_bytes) / self._waiting

    async def gaps(self, seconds: float) -> list[float]:
        """The gaps of the front; the keeper has it before and after."""
        front = asyncio.create_task(streams.hand_offs(self._server, seconds, priority=_FRONT))
        await asyncio.sleep(_QUEUED_SECONDS)
        await self._keeper.release()
        await self._keeper.acquire()
        return (await front).gaps

    async def _length(self) -> int:
        call = self._stub.Snapshot(pb.SnapshotRequest(max_tickets=1))
        length: int = (await call.read()).snapshot.queue_length
        call.cancel()
        return length


@contextlib.asynccontextmanager
async def _queue(server: Server) -> AsyncIterator[Queue]:
    async with grpc.aio.insecure_channel(server.target) as channel:
        with contextlib.ExitStack() as crowd:
            queue = Queue(server, channel, crowd)
            await queue.begin()
            yield queue
        await queue.end()


def rows(*, quick: bool) -> list[Row]:
    """A row for the memory, and one for the hand-offs; the picture shows both as the crowd grows."""
    if shutil.which("h2load") is None:
        return [("P6 A crowd on Acquire streams", "-", "-", "h2load is not installed")]
    levels, rounds, seconds = ([200], 1, 0.5) if quick else ([300, 1_000, 3_000, 10_000], 9, 1.5)
    return loop.run(_rows(levels, rounds, seconds, drawn=not quick))


async def _rows(levels: list[int], rounds: int, seconds: float, *, drawn: bool) -> list[Row]:
    many = levels[-1]
    with floor("mutex", loopback=True) as server:
        async with _queue(server) as queue:
            await queue.grow(many)
            bare = queue.bytes_each()
    with as_promised(*_SETTINGS, loopback=True) as one, as_promised(*_SETTINGS, loopback=True) as other:
        async with _queue(one) as small, _queue(other) as large:
            await small.grow(_FEW)
            grown = []
            for level in levels:
                await large.grow(level)
                gaps = await large.gaps(seconds)
                grown.append((large.bytes_each() / 1024, quantile(gaps, 0.99) * 1e3))
            turns = [[await queue.gaps(seconds) for queue in (small, large)] for _ in range(rounds)]
    if drawn:
        _draw(levels, grown, bare / 1024)
    ratios = [quantile(crowd, 0.99) / quantile(few, 0.99) for few, crowd in turns]
    few, crowd = (list(itertools.chain.from_iterable(turn[side] for turn in turns)) for side in (0, 1))
    ours, more = grown[-1][0], grown[-1][0] - bare / 1024
    return [
        (
            f"P6 Memory of a waiting Acquire stream, {many:,} of them",
            f"{bare / 1024:.1f} KiB",
            f"{ours:.1f} KiB",
            f"{more:.1f} KiB more; " + verdict("at most 8 KiB more", passed=more <= 8),
        ),
        (
            f"P6 Hand-off among 16 clients before {many:,} who wait, over Acquire streams",
            f"before {_FEW}: {both(few)}",
            both(crowd),
            f"p99 {spread(ratios, 2)} ×; " + verdict("at most 2 ×", passed=statistics.median(ratios) <= 2),
        ),
    ]


def _draw(levels: list[int], grown: list[tuple[float, float]], bare: float) -> None:
    steps, below = [f"{level:,}" for level in levels], "Acquire streams that wait"
    memory, p99 = (list(enumerate(column)) for column in zip(*grown, strict=True))
    draw(
        _PICTURE,
        [
            Chart("Memory of each, KiB", below, {"": memory}, steps, {f"bare server {bare:.1f}": bare}),
            Chart("Hand-off p99 among 16 clients before them, ms", below, {"": p99}, steps),
        ],
    )
