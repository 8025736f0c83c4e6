"""How programs end that hold leases: at once, with no more noise than they make themselves, and with nothing left."""

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.harness import exits
from e2e.harness.client import Client
from e2e.harness.leftovers import nothing_left
from e2e.harness.waiting import PATIENCE_SECONDS
from e2e.harness.web import environment
from support.process import Arbiterd

AS_IT_HAPPENS = "ZeroDivisionError: as it happens"
INTERRUPTED = "KeyboardInterrupt"
# The exit code of each, and the last line that it writes itself.
ENDS = {
    "ends": (0, ""),
    "own_arbiter": (0, ""),
    "raises": (1, AS_IT_HAPPENS),
    "exits": (3, ""),
    "exits_in_the_block": (4, ""),
    "daemon_thread_holds": (0, ""),
    "daemon_thread_waits": (0, ""),
    "daemon_thread_works": (0, ""),
    "thread_outlives_main": (0, ""),
    "exits_in_a_thread": (0, ""),
    "exits_while_queued": (6, ""),
    "exits_when_asked_to_yield": (0, ""),
    "generator_holds": (0, ""),
    "in_a_task": (8, ""),
    "leaves_its_own_arbiter": (0, ""),
    "leaves_and_is_gone": (0, ""),
    "interrupted": (-signal.SIGINT, INTERRUPTED),
    "terminated": (-signal.SIGTERM, ""),
    "async_ends": (0, ""),
    "async_raises": (1, AS_IT_HAPPENS),
    "async_exits_when_asked_to_yield": (9, ""),
    "async_cancelled_in_the_block": (0, ""),
    "async_interrupted": (-signal.SIGINT, INTERRUPTED),
    "async_leaves": (0, ""),
    "async_leaves_and_is_gone": (0, ""),
    "async_loop_is_dropped": (0, ""),
}
SIGNALS = {"interrupted": signal.SIGINT, "async_interrupted": signal.SIGINT, "terminated": signal.SIGTERM}
# Those that get no chance to give everything back, or not always; the arbiter sees that their process is gone.
DIE = {
    "terminated",
    "daemon_thread_works",
    "async_ends",
    "async_raises",
    "async_exits_when_asked_to_yield",
    "async_loop_is_dropped",
    "leaves_and_is_gone",
    "async_leaves_and_is_gone",
}
_GIVEN_BACK = ("RELEASED", "YIELDED")
AT_A_TIME = 3


async def end_of(name: str, arbiter: Arbiterd) -> tuple[int, str]:
    """The exit code of a program, and what it wrote to stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        Path(exits.__file__),
        name,
        env=environment(arbiter.grpc),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 2 * PATIENCE_SECONDS) == b"held\n"
        if name in SIGNALS:
            process.send_signal(SIGNALS[name])
        _, said = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, said.decode()


@pytest.mark.timeout(240)
async def test_programs_end_at_once_and_leave_nothing(arbiter: Arbiterd, connect: Callable[[Arbiterd], Client]):
    assert set(ENDS) == set(exits.PROGRAMS)
    turns = asyncio.Semaphore(AT_A_TIME)

    async def watch(name: str) -> tuple[int, str]:
        async with turns:
            return await end_of(name, arbiter)

    seen = dict(zip(ENDS, await asyncio.gather(*map(watch, ENDS)), strict=True))
    last = {name: (code, (said.splitlines() or [""])[-1]) for name, (code, said) in seen.items()}
    assert last == ENDS
    # A traceback is the program's own, and no more than one where none causes another.
    for name, (_, said) in seen.items():
        assert said.count("Traceback") <= (2 if name == "async_interrupted" else 1 if ENDS[name][1] else 0), said
        assert "gpuarbiter/_" not in said, said
    client = connect(arbiter)
    await nothing_left(client)
    gave_back = {event.task_type for event in await client.events("ENDED") if event.detail.startswith(_GIVEN_BACK)}
    assert {f"EXIT-{name}" for name in ENDS if name not in DIE} <= gave_back
