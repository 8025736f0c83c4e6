"""Many clients in processes of their own, some of which are killed: python swarm.py TARGET FOLDER CLIENTS SECONDS SEED.

Each client asks for exclusive leases, one after another, with the Python client, and takes most of the GPU's
(simulated) memory while it holds one, so that two holders at a time would run out of it. It keeps a diary: a line of
JSON, with the monotonic time, for everything that happens to it. What is written survives SIGKILL.
The parent forks the clients, kills one now and then, writes down whom, and puts a new one in its place.
When the time is over, the clients ask for nothing more; who waits is still served.
"""

import json
import mmap
import os
import random
import select
import signal
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import gpuarbiter
from gpuarbiter import Arbiter, ArbiterError, Declined, Lease
from gpuarbiter.sim import SimulatedMemory, SimulatedOutOfMemory

TASK = "SWARM"
PRIORITIES = (48, 49, 50, 50, 50, 51, 52, 55)
LONGEST_HOLD_SECONDS = 0.03
LONGEST_PAUSE_SECONDS = 0.4
KILL_EVERY_SECONDS = 0.12
MEMORY = "20GiB"
# What a client is doing, in its byte of the shared memory; the last byte says that the time is over.
IDLE, WAITING, HOLDING = range(3)


class Diary:
    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, event: str, **facts: Any) -> None:
        line = {"event": event, "at": time.monotonic(), "wall": time.time(), **facts}
        os.write(self._file, json.dumps(line).encode() + b"\n")


class Client:
    def __init__(self, number: int, target: str, diary: Diary, states: mmap.mmap, seed: str) -> None:
        self._number = number
        self._diary = diary
        self._states = states
        self._chance = random.Random(seed)
        self._arbiter = Arbiter(target, client_id=f"client-{number}")
        self._request = ""

    def run(self) -> None:
        with self._arbiter:
            while not self._states[-1]:
                self._ask()
                self._states[self._number] = IDLE
                # Thinks; the one use of time here is to be a client like any other.
                time.sleep(self._chance.uniform(0, LONGEST_PAUSE_SECONDS))

    def _ask(self) -> None:
        self._request = str(uuid.uuid4())
        priority = self._chance.choice(PRIORITIES)
        impatient = self._chance.random() < 0.15
        self._diary.write("asks", request=self._request, priority=priority, impatient=impatient)
        try:
            answer = self._arbiter.acquire(
                TASK,
                request_id=self._request,
                priority=priority,
                busy_policy="SKIP" if impatient else "WAIT",
                max_wait=0.3 if impatient else 300,
                max_hold=0,
                on_queued=self._waits,
            )
        except ArbiterError as error:
            self._diary.write("failed", request=self._request, reason=error.reason)
            return
        if isinstance(answer, Declined):
            self._diary.write("declined", request=self._request)
        elif isinstance(answer, Lease):
            self._hold(answer)

    def _waits(self, _queued: object) -> None:
        self._states[self._number] = WAITING

    def _hold(self, lease: Lease) -> None:
        # When the arbiter queued it, by the arbiter's own clock.
        queued_at = lease.message.grant_time.ToNanoseconds() / 1e9 - lease.queue_wait.total_seconds()
        self._diary.write("granted", request=self._request, token=lease.fencing_token, queued_at=queued_at)
        self._states[self._number] = HOLDING
        until = time.monotonic() + self._chance.uniform(0, LONGEST_HOLD_SECONDS)
        try:
            with SimulatedMemory(MEMORY, lease.visible_devices):
                while time.monotonic() < until and not lease.lost:
                    self._diary.write("uses", request=self._request)
                    time.sleep(0.002)
        except SimulatedOutOfMemory as error:
            self._diary.write("out of memory", request=self._request, detail=str(error))
        if lease.lost:
            self._diary.write("lost", request=self._request, reason=lease.lost_reason)
        self._diary.write("releases", request=self._request)
        released = lease.release()
        self._diary.write("released", request=self._request, already_ended=released.already_ended)


class Swarm:
    def __init__(self, target: str, folder: Path, clients: int, seed: str) -> None:
        self._target = target
        self._folder = folder
        self._seed = seed
        self._clients = clients
        self._chance = random.Random(seed)
        self._states = mmap.mmap(-1, clients + 1)
        self._pids = [0] * clients
        self._watches = [0] * clients
        self._generations = [0] * clients
        self._diary = Diary(folder / "swarm.jsonl")

    def run(self, seconds: float) -> None:
        for number in range(self._clients):
            self._start(number)
        end = time.monotonic() + seconds
        wanted = HOLDING
        while time.monotonic() < end:
            time.sleep(self._chance.uniform(0, 2 * KILL_EVERY_SECONDS))
            victims = [number for number in range(self._clients) if self._states[number] == wanted]
            if victims:
                self._kill(self._chance.choice(victims))
                wanted = WAITING if wanted == HOLDING else HOLDING
        self._states[-1] = 1
        for watch in self._watches:
            _wait_for(watch)
        self._diary.write("over")

    def _start(self, number: int) -> None:
        self._generations[number] += 1
        self._states[number] = IDLE
        name = f"{number}-{self._generations[number]}"
        self._pids[number] = os.fork()
        if self._pids[number]:
            self._watches[number] = os.pidfd_open(self._pids[number])
            return
        code = 1
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            diary = Diary(self._folder / f"client-{name}.jsonl")
            Client(number, self._target, diary, self._states, f"{self._seed}-{name}").run()
            diary.write("leaves")
            code = 0
        finally:
            # Not the parent's cleanup; and what went wrong is on stderr.
            if code:
                sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            os._exit(code)

    def _kill(self, number: int) -> None:
        doing, since = self._states[number], time.time()
        os.kill(self._pids[number], signal.SIGKILL)
        _wait_for(self._watches[number])
        name = f"{number}-{self._generations[number]}"
        self._diary.write("killed", client=name, doing="holding" if doing == HOLDING else "waiting", since=since)
        self._start(number)


def _wait_for(watch: int) -> None:
    """Until a process is dead; it is reaped by itself, so that no zombie is left for anybody to see."""
    select.select([watch], [], [])
    os.close(watch)


def main() -> None:
    target, folder, clients, seconds, seed = sys.argv[1:]
    # Loaded before the forks, so that each child costs no more than the fork.
    assert all(getattr(gpuarbiter, name) is not None for name in gpuarbiter.__all__)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    Swarm(target, Path(folder), int(clients), seed).run(float(seconds))


if __name__ == "__main__":
    main()
