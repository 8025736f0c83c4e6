"""Services that are plugged in and out: python services.py TARGET SECONDS SEED.

Each is a process with a lease of its own, under a client_id that stays, and asks for short ones beside it,
all with the Python client. The parent forks them, and every now and then starts one, tells one to leave (SIGTERM),
kills one, or replaces one by a newer one that takes its lease over while it still runs. In the end all leave or are
killed. It tells a line of JSON: what it did, how often, and what went wrong in any of them.
"""

import json
import logging
import os
import random
import select
import signal
import sys
import threading
import time
from collections import Counter

import gpuarbiter
from gpuarbiter import Arbiter, Declined, LeaseLost, Superseded, WaitTimeout

PLACES = 12
EVERY_SECONDS = 0.06


class Service:
    """One process."""

    def __init__(self, target: str, name: str, lease: str, seed: str) -> None:
        self._target = target
        self._name = name
        self._lease = lease
        self._chance = random.Random(seed)
        self._leaving = threading.Event()

    def run(self) -> None:
        """Until it is told to leave, or its newer version has taken over."""
        signal.signal(signal.SIGTERM, lambda *_: self._leaving.set())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        with Arbiter(self._target, client_id=self._name) as arbiter:
            model = arbiter.lease("MODEL", memory="1GiB", shared=True, request_id=self._lease, max_hold=0)
            try:
                with model as held:
                    while not self._leaving.wait(self._chance.uniform(0, 0.05)):
                        held.check()
                        self._work(arbiter)
            except (Superseded, LeaseLost) as over:
                # A newer version has taken over: while this one waited, or while it held.
                if over.reason != "SUPERSEDED":
                    raise

    def _work(self, arbiter: Arbiter) -> None:
        try:
            with arbiter.lease("JOB", memory="2GiB", shared=True, max_wait=1):
                self._leaving.wait(self._chance.uniform(0, 0.02))
        except (Declined, WaitTimeout):
            return


class Plugboard:
    """The parent of all services."""

    def __init__(self, target: str, seed: str) -> None:
        self._target = target
        self._seed = seed
        self._chance = random.Random(seed)
        # Place -> process, and the request_id that it and its newer versions share.
        self._services: dict[int, int] = {}
        self._leases: dict[int, str] = {}
        self._leaving: list[int] = []
        self._started = 0
        self.done: Counter[str] = Counter()
        self.failed: list[str] = []

    def run(self, seconds: float) -> None:
        """Plugs in and out, and leaves nothing plugged in."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            # A pause between two events, as in life.
            time.sleep(self._chance.uniform(0, 2 * EVERY_SECONDS))
            place = self._chance.randrange(PLACES)
            if place not in self._services:
                # What has ended is not to be had again by the name that it had.
                self._leases[place] = f"model-{place}-{self._started}"
                self._plug_in(place, "started")
            else:
                self._chance.choice((self._leave, self._leave, self._kill, self._upgrade))(place)
        for place in list(self._services):
            self._chance.choice((self._leave, self._kill))(place)
        for pid in self._leaving:
            # One whose newer version did not live to take over has nobody else to tell it.
            os.kill(pid, signal.SIGTERM)
        for pid in self._leaving:
            self._ends_well(pid)

    def _plug_in(self, place: int, how: str) -> None:
        self._started += 1
        seed = f"{self._seed}-{self._started}"
        # Told to leave before it can listen, it listens later.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        pid = os.fork()
        if not pid:
            _be(Service(self._target, f"service-{place}", self._leases[place], seed))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        self._services[place] = pid
        self.done[how] += 1

    def _leave(self, place: int) -> None:
        self._leaving.append(self._services.pop(place))
        os.kill(self._leaving[-1], signal.SIGTERM)
        self.done["left"] += 1

    def _kill(self, place: int) -> None:
        pid = self._services.pop(place)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self.done["killed"] += 1

    def _upgrade(self, place: int) -> None:
        """The old one runs on until it notices."""
        self._leaving.append(self._services.pop(place))
        self._plug_in(place, "upgraded")

    def _ends_well(self, pid: int) -> None:
        watch = os.pidfd_open(pid)
        ended, _, _ = select.select([watch], [], [], 20)
        os.close(watch)
        if not ended:
            self.failed.append(f"{pid} does not end")
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if status:
            self.failed.append(f"{pid} ended with {status}")


def _be(service: Service) -> None:
    code = 1
    try:
        service.run()
        code = 0
    finally:
        # Not the parent's cleanup; and what went wrong is on stderr.
        if code:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        os._exit(code)


def main() -> None:
    target, seconds, seed = sys.argv[1:]
    # That a lease was taken over is a warning there, and no news here.
    logging.getLogger("gpuarbiter").setLevel(logging.ERROR)
    # Loaded before the forks, so that each child costs no more than the fork.
    assert all(getattr(gpuarbiter, name) is not None for name in gpuarbiter.__all__)
    board = Plugboard(target, seed)
    board.run(float(seconds))
    print(json.dumps({"done": board.done, "failed": board.failed}))


if __name__ == "__main__":
    main()
