"""The guard of `gpu-arbiter run`: starts the command, and outlives it and whoever asked for it.

Law: it ends only once every process that descends from it is gone, or by a SIGKILL. So a lease that is held in
its name is held for as long as the command's processes live, also those that left its process group, and
also when the wrapper was killed. It hears its wrapper alone: the end of the line between them is the
wrapper's death. Other signals do not move it.

It is an interpreter of its own, with neither threads nor gRPC in it. Lines of JSON come in (cover, start, signal, end,
attest, bye) and go out (started, failed, stopped, exited, gone, attestation).
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from gpuarbiter._attestation import read_attestation
from gpuarbiter._guard.family import Ending, Family, adopt_orphans, call_process, processes

# What a terminal or a service manager sends to everybody: the command gets it itself.
_DEAF_TO = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGALRM")


class Guard:
    """The loop between the wrapper's orders and what happens to the command."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._unread = b""
        self._orphaned = False
        self._child: subprocess.Popen[bytes] | None = None
        self._family: Family | None = None
        self._code: int | None = None
        self._ending: Ending | None = None
        self._told_overdue = False
        # What stands in the order `start` or before it; for the case that nobody is left to do it.
        self._grace = 0.0
        self._give_back: dict[str, Any] = {}
        self._over = False

    def serve(self, woken: socket.socket) -> None:
        """Until all is over."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._line, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while not self._over:
                ready = {key.fileobj for key, _ in selector.select(self._patience())}
                if woken in ready:
                    woken.recv(4096)
                if self._line in ready and not self._listen():
                    selector.unregister(self._line)
                    self._lose_wrapper()
                self._follow()
                self._go_on()
        if self._orphaned and self._give_back:
            _give_back(self._give_back)

    def _patience(self) -> float | None:
        return None if self._ending is None else self._ending.pause_seconds

    # -- the wrapper --

    def _listen(self) -> bool:
        """Does what the wrapper says; False when there is no wrapper any more."""
        try:
            received = self._line.recv(2**16)
        except OSError:  # it was killed while something lay unread
            received = b""
        *lines, self._unread = (self._unread + received).split(b"\n")
        for line in lines:
            self._obey(json.loads(line))
        return bool(received)

    def _obey(self, order: dict[str, Any]) -> None:
        match order["order"]:
            case "cover":
                self._grace, self._give_back = order["grace"], order["give_back"]
            case "start":
                self._start(order["argv"], order["environment"])
            case "signal" if self._family is not None:
                self._family.send(order["number"])
            case "end" if self._family is not None:
                self._ending = Ending(self._family, order["grace"])
            case "attest":
                self._tell("attestation", token=read_attestation(Path(order["path"])))
            case "bye" if self._family is None:
                self._over = True
            case "bye":
                self._lose_wrapper()

    def _lose_wrapper(self) -> None:
        if self._over:
            return
        self._orphaned = True
        if self._family is None:
            self._over = True
        elif self._ending is None:
            self._ending = Ending(self._family, self._grace)

    def _tell(self, event: str, **facts: Any) -> None:
        with contextlib.suppress(OSError):  # nobody listens
            self._line.sendall(json.dumps({"event": event, **facts}).encode() + b"\n")

    # -- the command --

    def _start(self, argv: list[str], environment: dict[str, str]) -> None:
        try:
            # What the wrapper inherited (as `<(…)` of a shell) is for the command; what is our own is not inheritable.
            self._child = subprocess.Popen(argv, env=environment, process_group=0, close_fds=False)  # noqa: S603 -- the user's own command
        except OSError as error:
            self._tell("failed", errno=error.errno, why=error.strerror)
            return
        # The leader's pid is the group's id, and stays taken until it is reaped: at the very end.
        self._family = Family(self._child.pid)
        self._tell("started", pid=self._child.pid)

    def _follow(self) -> None:
        if self._child is None:
            return
        if self._code is None:
            self._follow_leader(self._child.pid)
        if hasattr(os, "waitid"):
            _reap_adopted(self._child.pid)

    def _follow_leader(self, pid: int) -> None:
        if not hasattr(os, "waitid"):
            self._reap_leader(pid)
            return
        while (state := os.waitid(os.P_PID, pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT | os.WNOHANG)) is not None:
            if state.si_code != os.CLD_STOPPED:
                self._exited(state.si_status if state.si_code == os.CLD_EXITED else 128 + state.si_status)
                return
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG)  # or it would be told again at once
            self._tell("stopped", signal=state.si_status)

    def _reap_leader(self, pid: int) -> None:
        """Where waitid is missing (macOS): the leader cannot be looked at without being reaped."""
        while self._code is None:
            found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
            if not found:
                return
            if os.WIFSTOPPED(status):
                self._tell("stopped", signal=os.WSTOPSIG(status))
                continue
            code = os.waitstatus_to_exitcode(status)
            self._exited(code if code >= 0 else 128 - code)

    def _exited(self, code: int) -> None:
        self._code = code
        self._tell("exited", code=code)

    def _go_on(self) -> None:
        if self._ending is None:
            return
        if not self._ending.go_on():
            if self._ending.overdue and not self._told_overdue:
                self._told_overdue = True
                self._tell("gone", gone=False)
            return
        self._ending = None
        if self._child is not None and hasattr(os, "waitid"):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._child.pid, 0)
            self._child.returncode = 0  # or the interpreter would complain at its end
        self._family = None
        self._tell("gone", gone=True)
        self._over = self._orphaned


def _reap_adopted(leader: int) -> None:
    """Lets go of orphans that ended. The leader is not reaped here."""
    with contextlib.suppress(ChildProcessError):
        while (state := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)) is not None:
            if state.si_pid == leader:  # it hides those behind it
                for process in processes() or ():
                    if process.zombie and process.parent == os.getpid() and process.pid != leader:
                        os.waitpid(process.pid, os.WNOHANG)
                return
            os.waitpid(state.si_pid, os.WNOHANG)


def _give_back(what: dict[str, Any]) -> None:
    """Gives the lease back, or the request, in the name of the wrapper that was killed. As well as it can."""
    sys.path[:] = what["path"]
    with contextlib.suppress(Exception):  # the arbiter finds out by itself, by our death or the lease's ttl
        from gpuarbiter import Arbiter, WorkReport

        facts = {name: what[name] for name in ("client_id", "token")}
        with Arbiter(what["address"], **facts, on_unavailable="fail") as arbiter:
            arbiter.release(request_id=what["request_id"], report=WorkReport(result="CANCELLED"))


def main(descriptor: int) -> None:
    """The guard, at the other end of a line to its wrapper."""
    line = socket.socket(fileno=descriptor)
    line.set_inheritable(False)
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    for name in _DEAF_TO:
        number = getattr(signal, name, None)
        # Not SIG_IGN, which the command would inherit; and what is ignored stays so, as under nohup.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: None)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    adopt_orphans()
    call_process("gpu-arb-guard")
    Guard(line).serve(woken)
