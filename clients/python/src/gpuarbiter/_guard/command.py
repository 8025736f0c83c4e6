"""A command and everything it starts, followed and ended as a whole, by a guard in between.

Law: the guard (gpuarbiter._guard) is the command's parent. When this process is killed the guard ends the command;
when the guard is killed the command becomes ours, and is ended from here.
"""

import contextlib
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from gpuarbiter._guard.family import KILLED_SECONDS, Ending, Family, adopt_orphans
from gpuarbiter._guard.news import Exited, GuardLost, Stopped

# Its standard library first, then our own package, then whatever is installed.
_BOOTSTRAP = (
    "import sys; sys.path.insert(3, sys.argv[1]); from gpuarbiter._guard.guard import main; main(int(sys.argv[2]))"
)
_ROOT = Path(__file__).parents[2]
# It answers at once, except that it waits a second for an attestation.
_ANSWER_SECONDS = 10.0


class Command(Protocol):
    """A command, as its supervisor deals with it."""

    def send(self, number: int) -> None:
        """Sends a signal to every process of its group."""

    def end(self, grace_seconds: float) -> bool:
        """Ends all that is left of it: asked first, killed after the grace. Whether all is gone."""


class Guarded:
    """A guard, and later the command under it. What happens to the command goes into `events`.

    To be made before gRPC is, and before signals are handled: the command inherits what the guard has.
    """

    guard_pid: int | None

    def __init__(self, events: "queue.SimpleQueue[object]") -> None:
        self._events = events
        # Of each kind by itself: the library asks for attestations while the command is started and ended.
        self._answers: dict[str, queue.SimpleQueue[dict[str, Any] | None]] = {
            kind: queue.SimpleQueue() for kind in ("attestation", "start", "end")
        }
        self._sending = threading.Lock()
        self._attesting = threading.Lock()
        self._family: Family | None = None
        self._lost = False
        ours, theirs = socket.socketpair()
        self._line = ours
        # Should the guard be killed, the command is to become ours.
        adopt_orphans()
        with theirs:
            theirs.set_inheritable(True)
            # A group of its own, so that what is meant for ours does not reach it; the session stays, for the terminal.
            self._process = subprocess.Popen(  # noqa: S603 -- our own module
                [sys.executable, "-I", "-c", _BOOTSTRAP, str(_ROOT), str(theirs.fileno())],
                process_group=0,
                close_fds=False,
            )
        self.guard_pid = self._process.pid
        threading.Thread(target=self._read, daemon=True, name="gpu-arbiter-run").start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._order("bye")
        with contextlib.suppress(OSError):  # the guard is gone
            self._line.shutdown(socket.SHUT_RDWR)
        self._line.close()
        self._process.wait()
        adopt_orphans(on=False)

    def _read(self) -> None:
        with self._line.makefile("rb") as lines:
            try:
                for line in lines:
                    self._hear(json.loads(line))
            except (OSError, ValueError):  # closed by us, or broken off
                pass
        self._lost = True
        self._events.put(GuardLost())
        for answers in self._answers.values():
            answers.put(None)

    def _hear(self, message: dict[str, Any]) -> None:
        match message["event"]:
            case "exited":
                self._events.put(Exited(message["code"]))
            case "stopped":
                self._events.put(Stopped(message["signal"]))
            case "attestation":
                self._answers["attestation"].put(message)
            case "started" | "failed":
                self._answers["start"].put(message)
            case "gone":
                self._answers["end"].put(message)

    def _order(self, order: str, **facts: Any) -> None:
        try:
            with self._sending:
                self._line.sendall(json.dumps({"order": order, **facts}).encode() + b"\n")
        except OSError:  # the reader tells of it
            return

    def _answer(self, kind: str, seconds: float = _ANSWER_SECONDS) -> dict[str, Any] | None:
        """The answer to an order; None when the guard is gone, or does not give one."""
        try:
            answer = self._answers[kind].get(timeout=seconds)
        except queue.Empty:
            return None
        if answer is None:
            self._answers[kind].put(None)  # for those who ask later
        return answer

    def attest(self, path: Path) -> str:
        """What the guard reads from an attestation socket."""
        with self._attesting:
            self._order("attest", path=str(path))
            answer = self._answer("attestation")
        return "" if answer is None else str(answer["token"])

    def cover(self, grace_seconds: float, give_back: Mapping[str, Any]) -> None:
        """What is to be done should this process be killed: how long the command has, and what is given back then."""
        self._order("cover", grace=grace_seconds, give_back=give_back and {"path": sys.path, **give_back})

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Starts the command; the id of its process group.

        Raises:
            OSError: it cannot be started.
        """
        self._order("start", argv=list(command), environment=dict(environment))
        answer = self._answer("start")
        if answer is None:
            raise OSError(None, "the guard process is gone")
        if answer["event"] == "failed":
            raise OSError(answer["errno"], answer["why"])
        self._family = Family(answer["pid"])
        return int(answer["pid"])

    def send(self, number: int) -> None:
        """Sends a signal to every process of the group."""
        if self._family is not None and not self._lost:
            self._order("signal", number=int(number))

    def end(self, grace_seconds: float) -> bool:
        """Ends all that is left of the command: asked first, killed after the grace. Whether all is gone."""
        if self._family is None:
            return True
        self._order("end", grace=grace_seconds)
        answer = self._answer("end", grace_seconds + KILLED_SECONDS + _ANSWER_SECONDS)
        if answer is not None:
            return bool(answer["gone"])
        return self._end_orphans(self._family, grace_seconds)

    def outlast(self) -> None:
        """Waits until all that could not be ended is gone, or the guard is."""
        self._answers["end"].get()

    def _end_orphans(self, family: Family, grace_seconds: float) -> bool:
        ending = Ending(family, grace_seconds)
        while not ending.go_on():
            if ending.overdue:
                return False
            time.sleep(ending.pause_seconds)
        return True


class Unguarded:  # pragma: no cover -- Windows
    """The command as a plain child, where there are no process groups and no signals."""

    guard_pid = None

    def __init__(self, events: "queue.SimpleQueue[object]") -> None:
        self._events = events
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(0.0)

    def attest(self, _path: Path) -> str:
        """There is nothing to attest."""
        return ""

    def cover(self, grace_seconds: float, give_back: Mapping[str, Any]) -> None:
        """Nobody is there to do it."""

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """As a guard does it."""
        child = self._child = subprocess.Popen(command, env=environment)  # noqa: S603 -- the user's own command
        threading.Thread(target=lambda: self._events.put(Exited(child.wait())), daemon=True).start()
        return child.pid

    def send(self, _number: int) -> None:
        """Ends it: there is nothing else."""
        if self._child is not None:
            self._child.terminate()

    def end(self, grace_seconds: float) -> bool:
        """As a guard does it, for the child alone."""
        if self._child is None:
            return True
        self._child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(grace_seconds)
        return self._child.poll() is not None

    def outlast(self) -> None:
        """As a guard does it."""
        if self._child is not None:
            self._child.wait()


def supervised(events: "queue.SimpleQueue[object]") -> Guarded | Unguarded:
    """What starts a command and ends it on this system."""
    return Guarded(events) if os.name == "posix" else Unguarded(events)
