"""What a follower has seen is still so after the arbiter was killed."""

import asyncio
import random
import signal
import subprocess
import sys
from pathlib import Path

from .histories import events, opened

# Observes as much as can be written, and says what it has been shown: the number, and what it stands for.
PROGRAM = """
import asyncio, itertools, sys, time
from pathlib import Path
from gpuarbiter_server.core.effects import Recorded
from gpuarbiter_server.core.model import EventType
from gpuarbiter_server.store.history import History

async def main(path, life, after):
    kept = History(Path(path), max_events=10**6, max_age=1e6, max_bytes=2**30, wall=time.time)
    kept.start()
    async def happen():
        for number in itertools.count():
            for turn in range(number % 7):
                kept.observe(Recorded(EventType.RENEWED, detail=f"{life}.{number}.{turn}"))
            await asyncio.sleep(0)
            while len(kept._writer._arrived) > 1000:
                await asyncio.sleep(0)
    happening = asyncio.create_task(happen())
    async for event in kept.follow(int(after)):
        print(event.sequence, event.recorded.detail, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""
LIVES = 4


async def test_no_number_ever_stands_for_two_events(tmp_path: Path):
    path, seed = tmp_path / "history.db", random.randrange(2**32)
    chance = random.Random(seed)
    seen: list[tuple[int, str]] = []
    for life in range(LIVES):
        lines = await asyncio.to_thread(lived, path, life, len(seen), chance.randrange(1, 2000))
        # The follower begins after what the last one saw: nothing of it comes again, and nothing is left out.
        seen += lines
        assert [number for number, _ in seen] == list(range(1, len(seen) + 1)), f"seed {seed}"
        async with opened(path) as kept:
            kept_events = [(one.sequence, one.recorded.detail) for one in await events(kept)]
        assert kept_events[: len(seen)] == seen, f"seed {seed}"
        # What was committed but not seen has its number for good, too.
        seen = kept_events
    for life in range(LIVES):
        own = [detail for _, detail in seen if detail.startswith(f"{life}.")]
        assert own == happened(life, len(own)), f"seed {seed}"


def lived(path: Path, life: int, after: int, until: int) -> list[tuple[int, str]]:
    """What the follower of one life saw; it is killed when it has seen so much."""
    command = [sys.executable, "-c", PROGRAM, str(path), str(life), str(after)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(until)]
        child.kill()
        lines += child.stdout.readlines()
    assert child.returncode == -signal.SIGKILL
    # The last line may be cut off.
    whole = [line.split() for line in lines if line.endswith("\n")]
    return [(int(number), detail) for number, detail in whole]


def happened(life: int, count: int) -> list[str]:
    """The first events of a life."""
    details: list[str] = []
    number = 0
    while len(details) < count:
        details += [f"{life}.{number}.{turn}" for turn in range(number % 7)]
        number += 1
    return details[:count]
