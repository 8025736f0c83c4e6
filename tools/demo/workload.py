"""One worker of the demo: asks for leases of its task type for ever, and pretends to work under them."""

import contextlib
import logging
import random
import signal
import sys
import threading
from dataclasses import dataclass

from gpuarbiter import Arbiter, ArbiterError, Lease
from gpuarbiter.sim import SimulatedMemory, SimulatedOutOfMemory, visible


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker does: how long it works, how long it rests (seconds, on average), with how much memory."""

    task: str
    work: float
    rest: float
    memory: str = "4GiB"
    # Every so many leases it hangs, and the watchdog has to step in; 0: never.
    hangs_every: int = 0


WORKERS = {
    "asr-0": Worker("ASR", work=0.5, rest=0.8, memory="6GiB"),
    "asr-1": Worker("ASR", work=0.5, rest=0.8, memory="6GiB"),
    "nmt-0": Worker("NMT", work=0.3, rest=0.6, memory="4GiB"),
    "tts-0": Worker("TTS", work=0.4, rest=0.9, memory="3GiB", hangs_every=4),
    "repair-0": Worker("SEMANTIC_REPAIR", work=0.3, rest=0.4, memory="2GiB"),
}
_HANG_SECONDS = 60.0

stop = threading.Event()


def main() -> int:
    """Works until it is told to stop."""
    logging.disable(logging.CRITICAL)
    name = sys.argv[1]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with Arbiter(client_id=name) as arbiter:
        _work(arbiter, WORKERS[name])
    return 0


def _work(arbiter: Arbiter, worker: Worker) -> None:
    turn = 0
    while not stop.is_set():
        turn += 1
        hangs = bool(worker.hangs_every) and turn % worker.hangs_every == 0
        # A declined or timed-out request is part of the show; the next turn tries again.
        seconds = _HANG_SECONDS if hangs else random.expovariate(1 / worker.work)
        with (
            contextlib.suppress(ArbiterError, SimulatedOutOfMemory),
            arbiter.lease(worker.task, memory=worker.memory) as lease,
        ):
            _compute(lease, worker, seconds)
        stop.wait(random.expovariate(1 / worker.rest))


def _compute(lease: Lease, worker: Worker, seconds: float) -> None:
    """Takes memory where the GPU is simulated, and time; stops when it is asked to, or has lost the lease."""
    with contextlib.ExitStack() as stack:
        if visible(lease.visible_devices):
            stack.enter_context(
                SimulatedMemory(worker.memory, lease.visible_devices, utilization_ratio=random.uniform(0.5, 0.9))
            )
        until_lost = threading.Event()
        while seconds > 0 and not stop.is_set() and not lease.lost:
            # What hangs does not listen to yield requests either.
            if lease.yield_requested and seconds < _HANG_SECONDS / 2:
                return
            until_lost.wait(0.05)
            seconds -= 0.05


if __name__ == "__main__":
    sys.exit(main())
