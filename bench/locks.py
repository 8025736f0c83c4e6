"""One lease at a time, from one client (P3): the library and a bare Session, beside redis-py's lock.

A Session keeps order, so a release is sent and not awaited; redis-py waits for each answer.
"""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator

import grpc
import redis
import redis.asyncio

from bench import loop, peers, sessions
from bench.disk import sync_seconds
from bench.figures import Row, verdict
from bench.handing import Holder
from bench.servers import Server, as_promised
from gpuarbiter import Arbiter, AsyncArbiter

_WARM = 20
_KINDS = ("bare Session", "AsyncArbiter", "Arbiter", "redis.asyncio", "redis")
Run = Callable[[int], list[float]]


def rows(*, quick: bool) -> list[Row]:
    """At full durability beside a redis-server that syncs each change; in memory beside one that keeps nothing."""
    return [
        _row("full", durable=True, quick=quick),
        _row("memory", durable=False, quick=quick),
    ]


def _row(durability: str, *, durable: bool, quick: bool) -> Row:
    rounds, count = (2, 30) if quick else (7, 300)
    with as_promised(f"journal.durability={durability}", loopback=True) as server, _redis(durable=durable) as theirs:
        runs = _ours(server) | theirs
        turns, syncs = [], []
        for _ in range(rounds):
            turns.append({name: statistics.median(run(count)) for name, run in runs.items()})
            syncs.append(sync_seconds(30))
    times = {name: f"{name} {statistics.median(turn[name] for turn in turns) * 1e6:.0f} µs" for name in runs}
    kept = "syncs each change" if durable else "keeps nothing"
    disk = f"one fdatasync of the disk {statistics.median(syncs) * 1e6:.0f} µs"
    measure = f"P3 One client, acquire + release, p50, journal.durability: {durability}"
    ours = ", ".join(times[name] for name in _KINDS[:3])
    if not theirs:
        return (measure, f"redis-server is not installed; {disk}", ours, "-")
    like = {
        f"{mine} beside {their}": statistics.median(turn[mine] / turn[their] for turn in turns)
        for mine, their in (("AsyncArbiter", "redis.asyncio"), ("Arbiter", "redis"))
    }
    return (
        measure,
        f"redis-py's lock on a redis-server that {kept}: {times['redis.asyncio']}, {times['redis']}; {disk}",
        ours,
        ", ".join(f"{name} {ratio:.2f} ×" for name, ratio in like.items())
        + "; "
        + verdict("below 1 ×", passed=max(like.values()) < 1),
    )


def _ours(server: Server) -> dict[str, Run]:
    return {
        "bare Session": lambda count: loop.run(_bare(server, count)),
        "AsyncArbiter": lambda count: loop.run(_library(server, count)),
        "Arbiter": lambda count: _synchronous(server, count),
    }


@contextlib.contextmanager
def _redis(*, durable: bool) -> Iterator[dict[str, Run]]:
    with peers.redis_server(durable=durable) as peer:
        if peer is None:
            yield {}
            return
        yield {
            "redis.asyncio": lambda count: loop.run(_redis_asyncio(peer, count)),
            "redis": lambda count: _redis_synchronous(peer, count),
        }


async def _bare(server: Server, count: int) -> list[float]:
    async with grpc.aio.insecure_channel(server.target) as channel:
        client = await sessions.Client(channel).open()
        times = []
        for _ in range(_WARM + count):
            began = time.perf_counter()
            await client.acquire()
            await client.send_release()
            times.append(time.perf_counter() - began)
        await client.finish()
        return times[_WARM:]


async def _library(server: Server, count: int) -> list[float]:
    async with AsyncArbiter(server.target, client_id="bench") as arbiter:
        times = []
        for _ in range(_WARM + count):
            began = time.perf_counter()
            async with arbiter.lease("BENCH"):
                pass
            times.append(time.perf_counter() - began)
        return times[_WARM:]


def _synchronous(server: Server, count: int) -> list[float]:
    with Arbiter(server.target, client_id="bench") as arbiter:
        times = []
        for _ in range(_WARM + count):
            began = time.perf_counter()
            with arbiter.lease("BENCH"):
                pass
            times.append(time.perf_counter() - began)
        return times[_WARM:]


async def _redis_asyncio(peer: peers.Peer, count: int) -> list[float]:
    async with redis.asyncio.Redis(host="127.0.0.1", port=peer.port) as client:
        holder: Holder = peers.RedisHolder(client)
        times = []
        for _ in range(_WARM + count):
            began = time.perf_counter()
            await holder.acquire()
            await holder.release()
            times.append(time.perf_counter() - began)
        return times[_WARM:]


def _redis_synchronous(peer: peers.Peer, count: int) -> list[float]:
    with redis.Redis(host="127.0.0.1", port=peer.port) as client:
        lock = client.lock(peers.LOCK, timeout=peers.TTL_SECONDS)
        times = []
        for _ in range(_WARM + count):
            began = time.perf_counter()
            with lock:
                pass
            times.append(time.perf_counter() - began)
        return times[_WARM:]
