"""The processes of a command: which they are, what reaches them, and how they are ended.

Law: a signal never reaches a stranger who got an old pid. What is not known is not guessed: without /proc the
process group stands for all.
"""

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

# Windows has neither, and ends processes in one way only.
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
CONTINUE = getattr(signal, "SIGCONT", signal.SIGTERM)
PROC = Path("/proc")
# How long what was killed may take to be gone before that is told.
KILLED_SECONDS = 2.0
_FIRST_PAUSE_SECONDS = 0.005
_LONGEST_PAUSE_SECONDS = 0.1
# linux/prctl.h
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
# The fields of /proc/PID/stat after the name, which may itself hold spaces.
_STATE, _PARENT, _GROUP, _START = 0, 1, 2, 19


class Process(NamedTuple):
    """A process as /proc shows it; its pid and start say which one it is."""

    pid: int
    parent: int
    group: int
    start: int
    zombie: bool


def adopt_orphans(*, on: bool = True) -> bool:
    """Descendants that lose their parent become children of this process; whether that can be had (Linux)."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, int(on))


def call_process(name: str) -> bool:
    """What `ps` calls this process, of at most 15 bytes; whether that can be had (Linux)."""
    return _prctl(_PR_SET_NAME, name.encode())


def _prctl(what: int, value: int | bytes) -> bool:
    # Its variable arguments are unsigned longs; a plain int would be passed as half of one.
    whole = ctypes.c_ulong(value) if isinstance(value, int) else value
    nothing = ctypes.c_ulong(0)
    try:
        done: int = ctypes.CDLL(None).prctl(what, whole, nothing, nothing, nothing)
    except (OSError, AttributeError, TypeError):  # not Linux
        return False
    return done == 0


def processes() -> list[Process] | None:
    """Every process that can be seen; None where the system has no /proc."""
    if not (PROC / "self" / "stat").exists():
        return None
    found = (_read(entry.name) for entry in os.scandir(PROC) if entry.name.isdigit())
    return [process for process in found if process is not None]


def _read(pid: str) -> Process | None:
    try:
        fields = (PROC / pid / "stat").read_bytes().rpartition(b")")[2].split()
        zombie = fields[_STATE] in {b"Z", b"X"}
        return Process(int(pid), int(fields[_PARENT]), int(fields[_GROUP]), int(fields[_START]), zombie)
    except (OSError, IndexError, ValueError):  # gone meanwhile
        return None


class Family:
    """The processes of a command: its group, and, where orphans are adopted, all that descend from this process."""

    def __init__(self, group: int) -> None:
        self.group = group

    def living(self) -> list[Process]:
        """Those that are not over. Without /proc the group stands for all."""
        seen = processes()
        if seen is None:
            try:
                os.killpg(self.group, 0)
            except (ProcessLookupError, PermissionError):  # gone, or (macOS) nothing but zombies
                return []
            return [Process(self.group, 0, self.group, 0, zombie=False)]
        children: dict[int, list[Process]] = {}
        for process in seen:
            children.setdefault(process.parent, []).append(process)
        ours = {process.pid: process for process in seen if process.group == self.group}
        ahead = [os.getpid()]
        while ahead:
            for child in children.get(ahead.pop(), ()):
                ours[child.pid] = child
                ahead.append(child.pid)
        ours.pop(os.getpid(), None)
        return [process for process in ours.values() if not process.zombie]

    def send(self, number: int) -> None:
        """A signal for the group."""
        # Gone, or (macOS) nothing but zombies.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.group, number)

    def send_each(self, members: list[Process], *numbers: int) -> None:
        """Signals for the group, and for those of its members that left it: never for a stranger with an old pid."""
        for number in numbers:
            self.send(number)
        for process in members:
            if process.group != self.group:
                for number in numbers:
                    _send_one(process, number)


def _send_one(process: Process, number: int) -> None:
    with contextlib.suppress(OSError):
        if not hasattr(os, "pidfd_open"):
            os.kill(process.pid, number)
            return
        descriptor = os.pidfd_open(process.pid)
        try:
            # From here on the pid is nobody else's; is it still the one that was meant?
            again = _read(str(process.pid))
            if again is not None and again.start == process.start:
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


class Ending:
    """The end of a family: asked first, killed after the grace, until nobody is left."""

    def __init__(self, family: Family, grace_seconds: float) -> None:
        self._family = family
        self._asked: set[tuple[int, int]] = set()
        self._kill_at = time.monotonic() + grace_seconds
        self.pause_seconds = _FIRST_PAUSE_SECONDS

    @property
    def overdue(self) -> bool:
        """Who was killed should be gone by now."""
        return time.monotonic() >= self._kill_at + KILLED_SECONDS

    def go_on(self) -> bool:
        """Does what is due; whether all are gone. To be called again after `pause_seconds`."""
        living = self._family.living()
        if not living:
            return True
        if time.monotonic() >= self._kill_at:
            self._family.send_each(living, KILL)
        else:
            new = [process for process in living if (process.pid, process.start) not in self._asked]
            if new:
                self._asked |= {(process.pid, process.start) for process in new}
                # A stopped process hears nothing else.
                self._family.send_each(new, signal.SIGTERM, CONTINUE)
        self.pause_seconds = min(self.pause_seconds * 2, _LONGEST_PAUSE_SECONDS)
        return False
