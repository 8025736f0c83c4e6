"""Services are plugged in and out at random: they start, leave, are killed, and are replaced by newer ones.

Runs for 6 seconds, and for as many as GPU_ARBITER_SOAK says (60 when it says nothing sensible).
"""

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.harness.client import Client, event_names
from e2e.harness.leftovers import doubles, nothing_left
from e2e.harness.vitals import Window
from e2e.harness.waiting import eventually
from support import soak
from support.process import Arbiterd, environment

Start = Callable[..., Arbiterd]
Connect = Callable[[Arbiterd], Client]

PROGRAM = Path(__file__).parent / "harness" / "services.py"


@pytest.mark.timeout(900)
async def test_services_that_come_and_go_leave_no_state_behind(
    arbiterd: Start, connect: Connect, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    seconds, seed = soak.duration(6.0), random.randrange(2**32)
    window = Window(tmp_path)
    # A cooldown would tell of a state that was left behind: everybody is known by process, so there is none.
    settings = ("gpus=sim:2x24GiB", "cooldown=10m", "history.max_events=1000000", "log_level=warning")
    arbiter = arbiterd(*settings, more=window.env)
    client = connect(arbiter)
    config = await client.config()
    before = await asyncio.to_thread(window.look, arbiter)
    command = [sys.executable, PROGRAM, arbiter.grpc, f"{seconds:g}", str(seed)]
    services = await asyncio.to_thread(
        subprocess.run,
        command,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=seconds + 90,
        check=False,
    )
    assert not services.stderr, f"seed {seed}\n{services.stderr}"
    assert services.returncode == 0
    told = json.loads(services.stdout)
    events = await client.events()
    with soak.figures(capsys):
        names = event_names(events)
        print(
            f"\nservices for {seconds:g} s, seed {seed}: {told['done']}; {names.count('GRANTED')} leases,"
            f" {names.count('JOINED')} taken over"
        )
    assert told["failed"] == []
    assert told["done"].keys() == {"started", "left", "killed", "upgraded"}
    assert not doubles(events)
    await nothing_left(client)

    # Nor anything less plain to see. What a lease had committed counts until a reading shows that it is free.
    async def free() -> bool:
        return not any(gpu.memory.committed_bytes for gpu in (await client.snapshot()).gpus)

    await eventually(free, "the memory of the last leases to be seen free")
    for gpu in (await client.snapshot()).gpus:
        assert not gpu.HasField("cooldown_remaining")
        assert not gpu.cordoned
    assert await client.config() == config

    async def as_before() -> bool:
        """The connections of the dead, and the eyes on them, are closed."""
        now = await asyncio.to_thread(window.look, arbiter)
        return now.files <= before.files and now.tasks <= before.tasks

    await eventually(as_before, f"no more than {before}")
