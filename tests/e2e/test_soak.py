"""Fifty clients with mixed priorities fight for one GPU, and some of them die: no overlap, order, and no time lost.

Runs for 8 seconds, and for as many as GPU_ARBITER_SOAK says (60 when it says nothing sensible) where that is set;
then the figures are shown.
"""

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import pytest

from e2e.harness.client import Client
from e2e.harness.swarm_report import Diaries, replay, table
from support.process import Arbiterd, environment

Start = Callable[..., Arbiterd]
Connect = Callable[[Arbiterd], Client]

PROGRAM = Path(__file__).parent / "harness" / "swarm.py"
CLIENTS = 50
# From the SIGKILL of a holder to the next grant.
GRANTED_ON_SECONDS = 1.0


def duration() -> float:
    told = os.environ.get("GPU_ARBITER_SOAK")
    if not told:
        return 8.0
    return float(told) if told.isdecimal() and int(told) > 1 else 60.0


@pytest.mark.timeout(900)
async def test_fifty_clients_of_which_some_are_killed_share_one_gpu(
    arbiterd: Start, connect: Connect, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    seconds, seed = duration(), random.randrange(2**32)
    arbiter = arbiterd(
        "queue_limit=200",
        "journal.durability=relaxed",
        "history.max_events=1000000",
        "cooldown=10m",
        "log_level=warning",
    )
    client = connect(arbiter)
    command = [sys.executable, PROGRAM, arbiter.grpc, str(tmp_path), str(CLIENTS), f"{seconds:g}", str(seed)]
    swarm = await asyncio.to_thread(
        subprocess.run,
        command,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=seconds + 90,
        check=False,
    )
    assert (swarm.returncode, swarm.stderr) == (0, "")
    diaries, events = Diaries(tmp_path), await client.events()
    trail = replay(events, diaries.asked())
    figures = table(diaries, trail, seconds)
    with capsys.disabled() if "GPU_ARBITER_SOAK" in os.environ else nullcontext():
        print(f"\n{CLIENTS} clients on one simulated GPU for {seconds:g} s, seed {seed}\n{figures}")

    # What the clients saw.
    assert diaries.over
    assert not diaries.all("out of memory")
    assert not diaries.all("lost")
    assert not diaries.all("failed")
    assert not [line for line in diaries.all("released") if line["already_ended"]]
    uses = diaries.uses()
    for earlier, later in pairwise(uses):
        assert earlier.end <= later.begin, f"two used the GPU at a time: {earlier}, {later}"
        assert earlier.token < later.token
    assert not {request: seen for request, seen in diaries.outcomes().items() if len(seen) != 1}

    # What the arbiter did.
    assert not trail.odd_ends
    assert not trail.disorder
    assert trail.compared > trail.granted
    assert max(trail.after_deaths) <= GRANTED_ON_SECONDS
    assert len(trail.after_deaths) > seconds / 2
    assert trail.granted >= len(uses)

    # Nothing is left.
    snapshot = await client.snapshot()
    assert not snapshot.leases
    assert snapshot.queue_length == 0
