"""Programs that ask for leases for ever, of many kinds, more than eight GPUs can serve at once.

    python -m tools.screenshots.crowd ADDRESS PART

Each part is a process of its own, so that the arbiter tells their memory apart. Ends with SIGTERM.
"""

import asyncio
import contextlib
import logging
import random
import signal
import sys
from dataclasses import dataclass

from gpuarbiter import ArbiterError, AsyncArbiter, AsyncLease
from gpuarbiter.sim import SimulatedMemory, SimulatedOutOfMemory, visible


@dataclass(frozen=True, slots=True)
class Kind:
    """What some clients do: how long they hold (seconds, on average), with how much memory, and how busy they are."""

    clients: int
    hold: float
    memory: str
    shared: bool = False
    busy: float = 0.7
    rest: float = 0.5
    count: int = 1
    # Every so many leases it hangs, and the watchdog has to step in; 0: never.
    hangs_every: int = 0
    candidates: tuple[str, ...] = ()


FRONT = ("gpu:0", "gpu:1", "gpu:2")
PARTS: dict[str, dict[str, Kind]] = {
    "speech": {
        "ASR": Kind(60, hold=3.0, memory="6GiB", busy=0.85, candidates=FRONT),
        "TTS": Kind(40, hold=2.0, memory="4GiB", busy=0.6, hangs_every=3, candidates=FRONT),
    },
    "text": {
        "NMT": Kind(50, hold=2.5, memory="5GiB", busy=0.7, candidates=("gpu:2", "gpu:3")),
        "SUMMARY": Kind(20, hold=7.0, memory="14GiB", busy=0.9, candidates=("gpu:3",)),
    },
    "models": {
        "EMBED": Kind(9, hold=9.0, memory="5GiB", shared=True, busy=0.2, candidates=("gpu:6",)),
        "TRAIN": Kind(3, hold=40.0, memory="18GiB", count=2, busy=0.97, rest=3.0, candidates=("gpu:4", "gpu:5")),
    },
    "forgotten": {
        # Holds its GPU past its limit, and does not listen.
        "EXPORT": Kind(1, hold=60.0, memory="8GiB", busy=0.3, rest=14.0, hangs_every=1, candidates=("gpu:3",)),
        "NOTEBOOK": Kind(1, hold=3600.0, memory="9GiB", busy=0.0, candidates=("gpu:7",)),
    },
}
# Who takes memory and asks nobody.
UNLEASED = {"forgotten": ("gpu:6", "3GiB")}


async def main() -> None:
    """Runs one part until it is told to stop."""
    logging.disable(logging.CRITICAL)
    address, part = sys.argv[1:3]
    stop = asyncio.Event()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        if part in UNLEASED:
            key, memory = UNLEASED[part]
            stack.enter_context(SimulatedMemory(memory, key.removeprefix("gpu:"), utilization_ratio=0.05))
        tasks = []
        for task, kind in PARTS[part].items():
            for number in range(kind.clients):
                arbiter = await stack.enter_async_context(AsyncArbiter(address, client_id=f"{task.lower()}-{number}"))
                tasks.append(asyncio.create_task(_work(arbiter, task, kind)))
        await stop.wait()
        for each in tasks:
            each.cancel()
        await asyncio.wait(tasks, timeout=3)


async def _work(arbiter: AsyncArbiter, task: str, kind: Kind) -> None:
    turn = 0
    while True:
        await asyncio.sleep(random.expovariate(1 / kind.rest))
        turn += 1
        hangs = bool(kind.hangs_every) and turn % kind.hangs_every == 0
        with contextlib.suppress(ArbiterError, SimulatedOutOfMemory):
            async with arbiter.lease(
                task,
                memory=kind.memory,
                shared=kind.shared,
                max_wait=120,
                count=kind.count,
                gpus=kind.candidates,
            ) as lease:
                await _hold(lease, kind, 60.0 if hangs else random.uniform(0.5, 1.5) * kind.hold, listens=not hangs)


async def _hold(lease: AsyncLease, kind: Kind, seconds: float, *, listens: bool) -> None:
    with contextlib.ExitStack() as stack:
        if visible(lease.visible_devices):
            stack.enter_context(
                SimulatedMemory(
                    kind.memory, lease.visible_devices, utilization_ratio=kind.busy * random.uniform(0.7, 1.0)
                )
            )
        while seconds > 0 and not lease.lost:
            if lease.yield_requested and listens:
                return
            await asyncio.sleep(0.1)
            seconds -= 0.1


if __name__ == "__main__":
    asyncio.run(main())
