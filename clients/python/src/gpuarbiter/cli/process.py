"""A command and everything it starts: one process group, followed and ended as a whole.

Law: the group's id stays taken until the last of its processes is gone (the leader is not reaped before),
so that no signal can hit a stranger who got the same number.
"""

import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Windows has neither, and ends processes in one way only.
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
CONTINUE = getattr(signal, "SIGCONT", signal.SIGTERM)
_POLL_SECONDS = 0.02
_KILLED_SECONDS = 2.0
_PROC = Path("/proc")
# Where stat's fields begin after the name, which may itself hold spaces: state, parent, group.
_STATE, _GROUP = 0, 2


@dataclass(frozen=True, slots=True)
class Exited:
    """The command ended, with its exit code, or 128 + the signal that ended it."""

    code: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """The command was stopped by a signal, as by Ctrl-Z."""

    signal: int


class ProcessGroup:
    """A started command. What happens to it goes into `events`.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], events: "queue.SimpleQueue[object]"
    ) -> None:
        self._events = events
        if os.name == "posix":
            # No preexec_fn: it does not mix with gRPC's threads.
            self._child = subprocess.Popen(command, env=environment, process_group=0)  # noqa: S603 -- the user's own command
        else:  # pragma: no cover -- Windows
            self._child = subprocess.Popen(command, env=environment)  # noqa: S603 -- the user's own command
        # The leader's pid is the group's id.
        self.pid = self._child.pid
        threading.Thread(target=self._follow, daemon=True, name="gpu-arbiter-run").start()

    def _follow(self) -> None:
        if not hasattr(os, "waitid"):
            code = self._child.wait()
            self._events.put(Exited(code if code >= 0 else 128 - code))
            return
        while True:
            state = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
            assert state is not None, "None comes with WNOHANG only"
            if state.si_code == os.CLD_STOPPED:
                os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG)  # or it would be told again at once
                self._events.put(Stopped(state.si_status))
                continue
            self._events.put(Exited(state.si_status if state.si_code == os.CLD_EXITED else 128 + state.si_status))
            return

    def send(self, number: int) -> None:
        """Sends a signal to every process of the group."""
        if os.name != "posix":  # pragma: no cover -- Windows
            self._child.terminate()
            return
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):  # gone, or (macOS) nothing but zombies
            return

    def end(self, grace_seconds: float) -> bool:
        """Ends what is left of the group after its leader: asked first, killed after the grace. Whether all is gone."""
        if self._living():
            self.send(signal.SIGTERM)
            self.send(CONTINUE)
            if not self._gone_within(grace_seconds):
                self.send(KILL)
        gone = self._gone_within(_KILLED_SECONDS)
        self._child.wait()
        return gone

    def _gone_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._living():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _living(self) -> bool:
        """Whether the group has a process that is not a zombie."""
        if os.name != "posix":  # pragma: no cover -- Windows
            return self._child.poll() is None
        if not (_PROC / "self" / "stat").exists():
            self._child.poll()
            try:
                os.killpg(self.pid, 0)
            except (ProcessLookupError, PermissionError):
                return False
            return True
        return any(_is_living_member(path, self.pid) for path in _PROC.glob("[0-9]*/stat"))


def _is_living_member(stat: Path, group: int) -> bool:
    try:
        fields = stat.read_bytes().rpartition(b")")[2].split()
        return int(fields[_GROUP]) == group and fields[_STATE] not in {b"Z", b"X"}
    except (OSError, IndexError, ValueError):  # gone meanwhile
        return False
