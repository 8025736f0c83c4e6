"""One arbiter after another, each killed, on the same addresses and the same state."""

import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from e2e.harness.waiting import PATIENCE_SECONDS
from fakes.faults import AFTER, BEFORE, WITHIN, Faults
from support.process import ISOLATED, Arbiterd, environment

_LOG, _MAIN = "journal.db-wal", "journal.db"
_PATIENCE_SECONDS = 3.0
# Most have granted something again before they die; the others die while their clients look for them.
_BUSY_SHARE = 0.75
_MOST_GRANTS = 50
_LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Plan:
    """How an arbiter is to die: at a call, or (without one) at any time."""

    name: str
    call: str = ""
    when: str = BEFORE
    path: str = ""
    # The call is one of the first so many.
    most: int = 6
    # It may die before it serves.
    at_start: bool = False
    # How long that death is waited for; then it is a random one.
    patience: float = _PATIENCE_SECONDS


RANDOM = Plan("at random")
PLANS = (
    Plan("before a write to the log", "write", BEFORE, _LOG),
    Plan("before a reply", "send", BEFORE, most=12),
    Plan("after a sync of the log", "sync", AFTER, _LOG),
    Plan("within a write to the log", "write", WITHIN, _LOG),
    Plan("after a reply", "send", AFTER, most=12),
    Plan("before a sync of the log", "sync", BEFORE, _LOG),
    Plan("at a write to the log as it starts", "write", WITHIN, _LOG, at_start=True),
    Plan("within a reply", "send", WITHIN, most=12),
    Plan("after a write to the log", "write", AFTER, _LOG),
    Plan("after a sync of the log as it starts", "sync", AFTER, _LOG, most=3, at_start=True),
)
# For these, the log has to be full first: after some hundred commits.
CHECKPOINTS = (
    Plan("within a write to the main file", "write", WITHIN, _MAIN, most=5, patience=15.0),
    Plan("before a sync of the main file", "sync", BEFORE, _MAIN, most=1, patience=15.0),
)


def planned(count: int, *, checkpoints: int) -> Iterator[Plan]:
    """So many deaths: the planned kinds in turn, checkpoints between them, at random in the last quarter."""
    distance = count // checkpoints if checkpoints else count + 1
    for number in range(count):
        if number % distance == distance - 1:
            yield CHECKPOINTS[number // distance % len(CHECKPOINTS)]
        elif number < count * 3 // 4:
            yield PLANS[number % len(PLANS)]
        else:
            yield RANDOM


@dataclass(frozen=True)
class Death:
    """One that happened."""

    kind: str
    # By the monotonic clock: of the SIGKILL, of the start of the next one, and when that one served; None: it died too.
    at: float
    started: float
    served: float | None


class Lives:
    """The arbiter that runs now, and how those before it died."""

    def __init__(self, folder: Path, diaries: Path, dice: random.Random, *settings: str) -> None:
        self.faults = Faults(folder)
        self.deaths: list[Death] = []
        self._diaries = diaries
        self._seen: dict[Path, int] = {}
        self._folder = folder
        self._dice = dice
        grpc, http = free_port(dice), free_port(dice)
        flags = [*settings, f"listen.grpc=127.0.0.1:{grpc}", f"listen.http=127.0.0.1:{http}", "log_level=warning"]
        self._arguments = ["serve", *ISOLATED, *(part for flag in flags for part in ("--set", flag))]
        self._env = environment(folder, **self.faults.env)
        self._all: list[Arbiterd] = []
        self._died = "", 0.0
        # Whether the last one died before its clients had found it again.
        self._early = False
        self._launch().wait_until_ready()

    @property
    def now(self) -> Arbiterd:
        """The one that runs."""
        return self._all[-1]

    def die(self, plan: Plan) -> None:
        """Has it die by this plan, and starts the next one; returns when that one serves."""
        # Not one after another: no client of its own makes up for an arbiter that never stays.
        if self._early or self._dice.random() < _BUSY_SHARE:
            self._early = plan.at_start
            self._wait_until_busy()
        else:
            self._early = True
        if plan.at_start:
            self._kill(RANDOM.name)
            self._arm(plan)
            self._begin_again(may_die=True)
            self.now.process.wait(PATIENCE_SECONDS)
            self._take_death(plan.name)
        elif plan.call:
            self._arm(plan)
            try:
                self.now.process.wait(plan.patience)
            except subprocess.TimeoutExpired:
                self._kill(f"at random, instead of {plan.name}")
            else:
                self._take_death(plan.name)
        else:
            time.sleep(self._dice.uniform(0, 0.5))  # The fault itself: at any moment.
            self._kill(plan.name)
        self.faults.disarm()
        self._begin_again()

    def close(self) -> list[str]:
        """Ends the last one; what each of them said."""
        self.now.stop()
        for each in self._all[:-1]:
            each.stop()
        return [each.output for each in self._all]

    def _wait_until_busy(self) -> None:
        """Lets the clients find it again, and work."""
        deadline, wanted = time.monotonic() + _PATIENCE_SECONDS, self._dice.randint(1, _MOST_GRANTS)
        self._grants()
        while wanted > 0 and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
            wanted -= self._grants()

    def _grants(self) -> int:
        """How many the diaries tell of since the last look."""
        found = 0
        for path in self._diaries.glob("client-*.jsonl"):
            with path.open("rb") as diary:
                diary.seek(self._seen.get(path, 0))
                told = diary.read()
            self._seen[path] = self._seen.get(path, 0) + len(told)
            found += told.count(b'"event": "granted"')
        return found

    def _arm(self, plan: Plan) -> None:
        self.faults.kill(plan.call, plan.when, self._dice.randint(1, plan.most), path=plan.path)

    def _kill(self, name: str) -> None:
        self._died = name, time.monotonic()
        self.now.signal(signal.SIGKILL)
        self.now.wait()

    def _take_death(self, name: str) -> None:
        """It is dead, and of its planned call."""
        code, at = self.now.wait(), self.faults.killed_at
        assert at is not None, f"it ended with {code}:\n{self.now.output}"
        assert code == -signal.SIGKILL
        self._died = name, at

    def _begin_again(self, *, may_die: bool = False) -> None:
        """Starts the next one; returns when it serves, or has died as well."""
        started = time.monotonic()
        served = None
        launched = self._launch()
        if may_die:
            with suppress(AssertionError):
                launched.wait_for("is ready")
                served = time.monotonic()
        else:
            launched.wait_until_ready()
            served = time.monotonic()
        self.deaths.append(Death(*self._died, started, served))

    def _launch(self) -> Arbiterd:
        self._all.append(Arbiterd(*self._arguments, folder=self._folder, env=self._env))
        return self._all[-1]


def free_port(dice: random.Random) -> int:
    """A port that stays free while nobody listens there: the system gives none of these to those who ask for any."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = dice.randrange(10_000, lowest)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
