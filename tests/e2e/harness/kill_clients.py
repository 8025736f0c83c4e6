"""Clients in processes of their own that live through the deaths of their arbiter: TCP SOCKET FOLDER CLIENTS SEED.

Run as `python -m e2e.harness.kill_clients`. Each client asks for exclusive leases with the Python client, one after
another, and takes most of the GPU's (simulated) memory while it holds one, so that two at a time would run out of it.
It keeps a diary. Some hold for long, so that the arbiter dies under them; others for moments, so that there is always
something to be written and answered. They go on by what the library does for them, and ask again, by the same
request_id, when it gives up. When stdin is closed they ask for nothing more; who waits is still served.
"""

import mmap
import os
import random
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpuarbiter
from e2e.harness.swarm import Diary
from gpuarbiter import Arbiter, ArbiterError, Lease
from gpuarbiter.sim import SimulatedMemory, SimulatedOutOfMemory

TASK = "KILL"
MEMORY = "20GiB"
BEAT_SECONDS = 0.005
ASK_AGAIN_SECONDS = 0.1
# Outlives a restart that takes its time; a third of it is how often it is renewed.
TTL_SECONDS = 9.0


@dataclass(frozen=True)
class Habit:
    """How a client uses its GPU."""

    gpus: tuple[str, ...]
    longest_hold: float
    longest_pause: float
    # Of the lease's own; None: it lives by its stream alone.
    ttl: float | None = None
    detached: bool = False


_LONG, _SHORT = ("gpu:0", "gpu:1"), ("gpu:1", "gpu:2")
HABITS = (
    Habit(_LONG, 2.0, 0.3),
    Habit(_SHORT, 0.02, 0.03),
    Habit(_LONG, 2.0, 0.3, ttl=TTL_SECONDS),
    Habit(_SHORT, 0.02, 0.03),
    Habit(_LONG, 2.0, 0.3, ttl=TTL_SECONDS, detached=True),
    Habit(_SHORT, 0.02, 0.03, ttl=TTL_SECONDS),
    Habit(_LONG, 2.0, 0.3),
    Habit(_SHORT, 0.02, 0.03),
)


class Client:
    def __init__(self, number: int, target: str, diary: Diary, over: mmap.mmap, seed: str) -> None:
        self._habit = HABITS[number % len(HABITS)]
        self._diary = diary
        self._over = over
        self._chance = random.Random(seed)
        self._arbiter = Arbiter(target, client_id=f"client-{number}")
        self._request = ""

    def run(self) -> None:
        with self._arbiter:
            while not self._over[0]:
                self._request = str(uuid.uuid4())
                self._write("asks", gpus=self._habit.gpus)
                lease = self._ask()
                if lease is not None:
                    self._hold(lease)
                time.sleep(self._chance.uniform(0, self._habit.longest_pause))

    def _write(self, event: str, **facts: Any) -> None:
        self._diary.write(event, request=self._request, **facts)

    def _ask(self) -> Lease | None:
        """The lease, however long it takes; None: it was refused for good, which is a failure."""
        while True:
            try:
                answer = self._arbiter.acquire(
                    TASK,
                    request_id=self._request,
                    gpus=self._habit.gpus,
                    ttl=self._habit.ttl,
                    detached=self._habit.detached,
                    max_wait=600,
                    max_hold=0,
                    on_queued=lambda queued: self._write("queued", position=queued.position),
                )
            except ArbiterError as error:
                self._write("failed", transient=error.transient, reason=error.reason, detail=str(error))
                if not error.transient:
                    return None
                time.sleep(ASK_AGAIN_SECONDS)
            else:
                assert isinstance(answer, Lease), answer
                return answer

    def _hold(self, lease: Lease) -> None:
        self._write(
            "granted",
            token=lease.fencing_token,
            gpu=lease.gpus[0].key,
            lease_id=lease.lease_id,
            granted_wall=lease.message.grant_time.ToNanoseconds() / 1e9,
        )
        until = time.monotonic() + self._chance.uniform(0, self._habit.longest_hold)
        # Most wait to know where they stand before they give it back; some do not.
        patient = self._chance.random() < 0.8
        try:
            with SimulatedMemory(MEMORY, lease.visible_devices):
                self._use(lease, until, patient=patient)
        except SimulatedOutOfMemory as error:
            self._write("out of memory", detail=str(error))
        if lease.lost:
            self._write("lost", reason=lease.lost_reason, detail=lease.lost_detail)
        self._write("releases")
        try:
            released = lease.release()
        except ArbiterError as error:
            self._write("not released", reason=error.reason, detail=str(error))
        else:
            self._write("released", reason=released.reason, already_ended=released.already_ended)

    def _use(self, lease: Lease, until: float, *, patient: bool) -> None:
        was_uncertain = False
        while not lease.lost:
            uncertain = lease.uncertain
            if uncertain != was_uncertain:
                was_uncertain = uncertain
                self._write("uncertain" if uncertain else "mended")
            if time.monotonic() >= until and not (uncertain and patient):
                return
            if not uncertain and not lease.lost:
                self._write("uses")
            time.sleep(BEAT_SECONDS)


def start(number: int, target: str, folder: Path, over: mmap.mmap, seed: str) -> int:
    """Forks a client; its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        diary = Diary(folder / f"client-{number}.jsonl")
        Client(number, target, diary, over, f"{seed}-{number}").run()
        diary.write("leaves")
        code = 0
    finally:
        # Not the parent's cleanup; and what went wrong is on stderr.
        if code:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        os._exit(code)


def main() -> None:
    tcp, unix, folder, clients, seed = sys.argv[1:]
    # Loaded before the forks, so that each child costs no more than the fork.
    assert all(getattr(gpuarbiter, name) is not None for name in gpuarbiter.__all__)
    over = mmap.mmap(-1, 1)
    pids = [start(number, (tcp, unix)[number // 2 % 2], Path(folder), over, seed) for number in range(int(clients))]
    sys.stdin.read()
    over[0] = 1
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    sys.exit(any(codes))


if __name__ == "__main__":
    main()
