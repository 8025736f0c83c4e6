"""Clients come and go all the time, and nothing in the arbiter grows: memory, tasks, tickets, labels, files, threads.

Runs for about 8 seconds, and for as many as GPU_ARBITER_SOAK says (600 when it says nothing sensible).
"""

import asyncio
import gc
import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from e2e.harness.churn import Churn
from e2e.harness.client import Client
from e2e.harness.leftovers import nothing_left
from e2e.harness.vitals import Vitals, Window
from e2e.harness.waiting import eventually
from support import soak
from support.process import Arbiterd

Start = Callable[..., Arbiterd]
Connect = Callable[[Arbiterd], Client]

ROUNDS = 20 if soak.wanted() else 10
# What is remembered of leases and requests that are over, so that late calls can be answered, costs so much each and
# is bounded by number. The long form begins with that many of both, so that nothing is added.
KIB_PER_REMEMBERED = 1.5
# grpcio 1.85 does not free the batch of operations of a call that is cancelled while one is under way: 80 bytes and
# malloc's own for each operation (github.com/grpc/grpc/issues/43360). A bare server loses 90 bytes a call.
KIB_PER_CANCELLED = 0.1
# Beyond that memory is flat. The short form has too few leases for more than a coarse look: a call that is never let go
# of costs several times as much.
KIB_PER_1000_LEASES = 50.0 if soak.wanted() else 3_000.0
REMEMBERED = 100_000
# A commit on its way, a pool that is not full yet, an eye on a process: not one for each client that there was.
PASSERS_BY = 3
# Of one that has been counted once: an outcome that only a rare race brings about.
RARE_SERIES = 6
# There is one of them for each request, lease or stream. A few stay, with clocks that were stopped but not swept yet.
STALE_CLOCKS = 64
PASSING = {"Ticket", "Lease", "Outbox", "Session", "_Acquire"}


@pytest.mark.timeout(1200)
async def test_nothing_grows_while_clients_come_and_go(
    arbiterd: Start, connect: Connect, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    seconds, seed = soak.duration(8.0, long=600.0), random.randrange(2**32)
    window = Window(tmp_path)
    settings = ("gpus=sim:2x24GiB", "cooldown=0s", "defaults.disconnect_grace=50ms", "log_level=warning")
    # A bound that is reached early, and an analysis that runs early, so that neither looks like growth.
    analysis = "analysis={interval: 500ms, step: 100ms, time_window: 1s}"
    arbiter = arbiterd(*settings, "history.max_events=1000", "queue_limit=1000", analysis, more=window.env)
    client, churn = connect(arbiter), Churn(arbiter.grpc, seed)
    if soak.wanted():
        await churn.fill(REMEMBERED)
    seen: list[Vitals] = []
    cancelled: list[int] = []
    for _ in range(ROUNDS):
        await churn.run(seconds / ROUNDS)
        await nothing_left(client)
        seen.append(await _at_rest(window, arbiter))
        cancelled.append(churn.cancelled)
    await churn.close()
    half, last = ROUNDS // 2, seen[-1]
    warm = seen[half]
    memory = _per_1000(seen[half:], [vitals.rss_kib for vitals in seen[half:]])
    remembered = _per_1000(seen[half:], [vitals.objects["EndedRecord"] for vitals in seen[half:]])
    lost = _per_1000(seen[half:], cancelled[half:]) * KIB_PER_CANCELLED
    grown = {kind: last.objects[kind] - warm.objects.get(kind, 0) for kind in last.objects}
    with soak.figures(capsys):
        print(f"\n{churn.done.total()} clients in {seconds:g} s, seed {seed}: {dict(churn.done)}")
        for vitals in (seen[0], warm, last):
            print(f"  {vitals.ended} leases ended, {vitals.objects['EndedRecord']} remembered: {vitals}")
        print(f"  MiB after each round: {' '.join(f'{vitals.rss_kib / 1024:.1f}' for vitals in seen)}")
        print(f"  over the second half, for each 1,000 leases: {memory:.1f} KiB, {remembered:.0f} more are remembered,")
        print(f"  and up to {lost:.1f} KiB lost by gRPC for calls that were cancelled")
        print(f"  more objects than at half time: {sorted(grown.items(), key=lambda kind: -kind[1])[:4]}")

    assert memory < KIB_PER_1000_LEASES + KIB_PER_REMEMBERED * remembered + lost
    for now, early in ((last.tasks, warm.tasks), (last.threads, warm.threads), (last.files, warm.files)):
        assert now <= early + PASSERS_BY
    assert last.series <= warm.series + RARE_SERIES
    assert not {kind: last.objects[kind] for kind in PASSING if last.objects.get(kind, 0) > STALE_CLOCKS}


async def _at_rest(window: Window, arbiter: Arbiterd) -> Vitals:
    """The vitals once nothing changes any more: connections that clients have left take a moment to close."""
    before: list[Vitals] = []
    # A channel of grpc.aio that was closed keeps its connection until it is collected.
    gc.collect()

    async def same() -> bool:
        before.append(await asyncio.to_thread(window.look, arbiter))
        return len(before) > 1 and (before[-2].files, before[-2].tasks) == (before[-1].files, before[-1].tasks)

    await eventually(same, "the arbiter to come to rest")
    return before[-1]


def _per_1000(seen: list[Vitals], figures: Sequence[int]) -> float:
    """How a figure rises with each 1,000 leases that have ended."""
    return statistics.linear_regression([each.ended / 1000 for each in seen], figures).slope
