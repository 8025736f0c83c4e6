"""Two GPUs against one under the same load (P11)."""

import asyncio
import contextlib
import statistics
import time

import grpc

from bench import loop, sessions
from bench.figures import Row, spread, verdict
from bench.handing import CLIENTS, HOLD_SECONDS
from bench.servers import Server, as_promised
from gpuarbiter.v1 import lease_pb2

# All queue up first.
_BEGIN_SECONDS = 0.2
_ANY = lease_pb2.GpuRequest()


async def _rate(server: Server, seconds: float) -> float:
    """Leases a second of clients who hold any GPU for 3 ms, again and again."""
    ended = 0

    async def work(client: sessions.Client) -> None:
        nonlocal ended
        while (now := time.perf_counter()) < begin + seconds:
            ended += now > begin
            await client.acquire()
            await asyncio.sleep(HOLD_SECONDS)
            await client.send_release()
        await client.finish()

    async with grpc.aio.insecure_channel(server.target) as channel:
        clients = [await sessions.Client(channel, _ANY).open() for _ in range(CLIENTS)]
        begin = time.perf_counter() + _BEGIN_SECONDS
        await asyncio.gather(*map(work, clients))
        return ended / seconds


def rows(*, quick: bool) -> list[Row]:
    """One row."""
    rounds, seconds = (1, 0.3) if quick else (9, 1.5)
    with contextlib.ExitStack() as stack:
        servers = []
        for count in (1, 2):
            listed = ", ".join(f"{{key: 'gpu:{number}', memory: 24GiB}}" for number in range(count))
            servers.append(stack.enter_context(as_promised("queue_limit=100", f"gpus=[{listed}]")))
        turns = [[loop.run(_rate(server, seconds)) for server in servers] for _ in range(rounds)]
    one, two = (statistics.median(turn[side] for turn in turns) for side in (0, 1))
    ratios = [both / single for single, both in turns]
    return [
        (
            f"P11 Two GPUs beside one, {CLIENTS} clients, {HOLD_SECONDS * 1e3:.0f} ms holds, over Sessions",
            f"one GPU: {one:,.0f} leases a second",
            f"two GPUs: {two:,.0f} leases a second",
            f"{spread(ratios, 2)} ×; " + verdict("at least 1.9 ×", passed=statistics.median(ratios) >= 1.9),
        )
    ]
