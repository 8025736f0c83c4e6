"""Many pairs in flight over as many sessions (P2): how many a second, beside the bare floor.

The GPU is shared, so that no request waits and both servers send the same messages.
"""

import asyncio
import contextlib
import statistics
import time
from dataclasses import dataclass

import grpc

from bench import loop
from bench.figures import Row, spread, verdict
from bench.pairs import SHAPES
from bench.servers import Server, as_promised, floor
from gpuarbiter.v1 import gpu_arbiter_pb2_grpc as bindings

_SESSIONS = 32
_SHARED = "policies.BENCH={sharing: SHARED, memory: 64MiB}"
_WARM = 5


@dataclass(frozen=True)
class Sample:
    """One round against one server: pairs a second, and seconds of the server's CPU for one."""

    rate: float
    cpu: float


async def _measure(server: Server, first: int, each: int) -> Sample:
    """So many pairs on each session, whose numbers begin at `first`."""
    async with grpc.aio.insecure_channel(server.target) as channel, contextlib.AsyncExitStack() as stack:
        stub = bindings.GpuArbiterStub(channel)
        pairs = [await stack.enter_async_context(SHAPES["Session"](stub)) for _ in range(_SESSIONS)]

        async def work(session: int, begin: int, count: int) -> None:
            start = first + session * (_WARM + each) + begin
            for number in range(start, start + count):
                await pairs[session](number)

        await asyncio.gather(*(work(session, 0, _WARM) for session in range(_SESSIONS)))
        before, began = server.cpu_seconds(), time.perf_counter()
        await asyncio.gather(*(work(session, _WARM, each) for session in range(_SESSIONS)))
        took, count = time.perf_counter() - began, _SESSIONS * each
        return Sample(count / took, (server.cpu_seconds() - before) / count)


def rows(*, quick: bool) -> list[Row]:
    """One row."""
    rounds, each = (2, 5) if quick else (9, 60)
    turns = []
    with floor() as bare, as_promised(_SHARED) as ours:
        for turn in range(rounds):
            first = turn * _SESSIONS * (_WARM + each)
            turns.append([loop.run(_measure(server, first, each)) for server in (bare, ours)])
    figures = [
        f"{statistics.median(turn[side].rate for turn in turns):,.0f} pairs a second, "
        f"CPU {statistics.median(turn[side].cpu for turn in turns) * 1e6:.0f} µs"
        for side in (0, 1)
    ]
    rates = [ours.rate / bare.rate for bare, ours in turns]
    cpu = statistics.median(ours.cpu / bare.cpu for bare, ours in turns)
    return [
        (
            f"P2 Session: acquire + release, {_SESSIONS} in flight on as many sessions",
            *figures,
            f"pairs a second {spread(rates, 2)} ×, CPU {cpu:.2f} ×; "
            + verdict("at least 0.6 × the pairs", passed=statistics.median(rates) >= 0.6),
        )
    ]
