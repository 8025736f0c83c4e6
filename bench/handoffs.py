"""From hand to hand among sixteen who wait (P4): over sessions and streams, beside a bare mutex and other locks.

A lock without an order is often taken again by the one who has just given it back, and need not be told of that.
Targets go by all hand-offs; those to another are given as well.
"""

import contextlib
import itertools
import statistics
from collections.abc import Callable, Iterator

import aetcd
import redis.asyncio

from bench import handing, loop, peers, sessions, streams
from bench.figures import Row, both, quantile, spread, verdict
from bench.servers import as_promised, floor

# redis-py asks again each 100 ms unless told; more often serves p99, and costs p50.
_SLEEPS = {"": 0.1, ", asks each 20 ms": 0.02}
Run = Callable[[float], handing.HandOffs]
Turns = dict[str, list[handing.HandOffs]]


def rows(*, quick: bool) -> list[Row]:
    """A row for each of our two roads."""
    rounds, seconds = (1, 0.3) if quick else (5, 1.5)
    with _ours() as ours, _peers() as theirs:
        runs = ours | theirs
        turns: Turns = {name: [] for name in runs}
        for _, (name, run) in itertools.product(range(rounds), runs.items()):
            turns[name].append(run(seconds))
    found = {name: [gap for turn in each for gap in turn.gaps] for name, each in turns.items()}
    others = {name: [gap for turn in each for gap in turn.others] for name, each in turns.items()}
    best50, best99 = (min((quantile(found[name], share) for name in theirs), default=0.0) for share in (0.5, 0.99))
    said = {name: f"{both(found[name])} (to another {both(others[name])})" for name in runs}
    beside = "; ".join(f"{name}: {said[name]}" for name in theirs)
    session, stream = found["Session"], found["streams"]
    ratios = [
        quantile(mine.gaps, 0.5) / quantile(bare.gaps, 0.5)
        for mine, bare in zip(turns["streams"], turns["mutex"], strict=True)
    ]
    tail = quantile(session, 0.99) / quantile(session, 0.5)
    measure = f"P4 Hand-off among {handing.CLIENTS} clients, {handing.HOLD_SECONDS * 1e3:.0f} ms holds"
    below = quantile(session, 0.5) < best50 and quantile(session, 0.99) < best99
    near = statistics.median(ratios) <= 1.5 and quantile(stream, 0.99) < best99
    return [
        (
            f"{measure}, over Sessions",
            beside or "no other lock is installed",
            said["Session"],
            f"p99 {tail:.1f} × p50; "
            + verdict("p50 and p99 below the others', p99 at most 3 × p50", passed=below and tail <= 3),
        ),
        (
            f"{measure}, over Acquire streams",
            f"bare mutex {both(found['mutex'])}",
            said["streams"],
            f"p50 {spread(ratios, 2)} ×; " + verdict("at most 1.5 ×, p99 below the other locks'", passed=near),
        ),
    ]


@contextlib.contextmanager
def _ours() -> Iterator[dict[str, Run]]:
    with floor("mutex", loopback=True) as bare, as_promised("queue_limit=100", loopback=True) as server:
        yield {
            "mutex": lambda seconds: loop.run(streams.hand_offs(bare, seconds)),
            "Session": lambda seconds: loop.run(sessions.hand_offs(server, seconds)),
            "streams": lambda seconds: loop.run(streams.hand_offs(server, seconds)),
        }


@contextlib.contextmanager
def _peers() -> Iterator[dict[str, Run]]:
    """Those that are installed."""
    runs: dict[str, Run] = {}
    with contextlib.ExitStack() as stack:
        for kept, durable in (("keeps nothing", False), ("syncs each change", True)):
            if (peer := stack.enter_context(peers.redis_server(durable=durable))) is not None:
                for told, sleep in _SLEEPS.items():
                    runs[f"redis that {kept}{told}"] = _redis(peer, sleep)
        if (etcd := stack.enter_context(peers.etcd_server())) is not None:
            runs["etcd"] = lambda seconds: loop.run(_etcd_gaps(etcd, seconds))
        yield runs


def _redis(peer: peers.Peer, sleep: float) -> Run:
    return lambda seconds: loop.run(_redis_gaps(peer, sleep, seconds))


async def _redis_gaps(peer: peers.Peer, sleep: float, seconds: float) -> handing.HandOffs:
    async with redis.asyncio.Redis(host="127.0.0.1", port=peer.port) as client:
        return await handing.observed([peers.RedisHolder(client, sleep=sleep) for _ in range(handing.CLIENTS)], seconds)


async def _etcd_gaps(peer: peers.Peer, seconds: float) -> handing.HandOffs:
    async with aetcd.Client("127.0.0.1", peer.port) as client:
        return await handing.observed([peers.EtcdHolder(client) for _ in range(handing.CLIENTS)], seconds)
