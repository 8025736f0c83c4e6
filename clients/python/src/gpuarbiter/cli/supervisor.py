"""Between a running command and what happens meanwhile: signals, yield requests, readiness, the loss of the lease.

Law: one loop, one event at a time; whoever has news puts it into the queue.
"""

import queue
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from gpuarbiter._guard.command import Command
from gpuarbiter._guard.family import CONTINUE, KILL
from gpuarbiter._guard.news import Exited, GuardLost, Stopped
from gpuarbiter._units import format_bytes
from gpuarbiter.cli import exit_codes
from gpuarbiter.cli.news import Asked, Lost, NotReady, Ready, Signalled, StopRefused
from gpuarbiter.cli.output import Messages

if TYPE_CHECKING:
    from gpuarbiter import YieldRequest


# How often a command that wants the terminal is looked after, while that is not ours to lend.
_LEND_SECONDS = 0.25
_WANTS_TERMINAL = {getattr(signal, name, 0) for name in ("SIGTTIN", "SIGTTOU")}


class Supervisor:
    """Carries events to the command until it ends.

    lend: lends it the terminal; False when that is to be asked again later.
    """

    def __init__(
        self,
        command: Command,
        messages: Messages,
        events: "queue.SimpleQueue[object]",
        lend: Callable[[], bool],
        on_yield: signal.Signals | None = None,
    ) -> None:
        self._command = command
        self._messages = messages
        self._events = events
        self._lend = lend
        self._on_yield = on_yield
        self._kill_at: float | None = None
        self._lend_at: float | None = None
        # gpu-arbiter's own exit code, whatever the command's is.
        self.failure: int | None = None
        # Somebody wanted it to end.
        self.signalled = False

    def follow(self, grace_seconds: float) -> int:
        """Until the command ended; its exit code, or ours when something went wrong.

        Once the lease is lost, or it was not ready in time, it has that grace before it is killed.
        """
        while True:
            try:
                event = self._events.get(timeout=self._patience())
            except queue.Empty:
                self._do_what_is_due()
                continue
            if isinstance(event, Exited):
                return event.code if self.failure is None else self.failure
            if isinstance(event, GuardLost):
                self._messages.error("the guard process is gone, and the lease with it; ending the command")
                self.failure = exit_codes.RUN_FAILURE
                return self.failure
            before = self.failure
            self._take(event)
            if self.failure != before:
                self._kill_at = time.monotonic() + grace_seconds

    def _patience(self) -> float | None:
        due = [moment for moment in (self._kill_at, self._lend_at) if moment is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _do_what_is_due(self) -> None:
        now = time.monotonic()
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self._command.send(KILL)
        if self._lend_at is not None and now >= self._lend_at:
            self._lend_terminal()

    def _take(self, event: object) -> None:
        match event:
            case Signalled(number, ending):
                self.signalled |= ending
                self._command.send(number)
            case Lost(reason, detail):
                why = f"{reason}: {detail}" if detail else reason
                self._end(f"the lease is lost ({why}); ending the command", reason, exit_codes.LEASE_LOST)
            case NotReady(seconds, problem):
                why = f"not ready after {seconds:.0f}s ({problem}); ending the command"
                self._end(why, "NOT_READY", exit_codes.NOT_READY)
            case Ready():
                self._say_ready(event)
            case Stopped(number):
                self._resume(number)
            case StopRefused():
                self._refuse_stop()
            case Asked(request):
                self._yield(request)

    def _end(self, why: str, reason: str, code: int) -> None:
        if self.failure is not None:
            return
        self.failure = code
        self._messages.error(why, reason=reason)
        self._command.send(signal.SIGTERM)
        self._command.send(CONTINUE)

    def _resume(self, number: int) -> None:
        # A stopped command would sit on the GPU. SIGSTOP is somebody's deliberate act, and stays.
        if number == signal.SIGSTOP:
            return
        if number in _WANTS_TERMINAL:
            self._lend_terminal()
            return
        self._refuse_stop()
        self._command.send(CONTINUE)

    def _lend_terminal(self) -> None:
        if self._lend():
            self._lend_at = None
            self._command.send(CONTINUE)
            return
        if self._lend_at is None:
            self._messages.note("wants_terminal", "the command waits for the terminal: bring it to the foreground")
        self._lend_at = time.monotonic() + _LEND_SECONDS

    def _refuse_stop(self) -> None:
        self._messages.note("resumed", "a command cannot be stopped while it holds a GPU; it goes on")

    def _say_ready(self, ready: Ready) -> None:
        how = (
            f"but the GPU stays exclusive: {ready.refused}"
            if ready.refused
            else f"the GPU is shared now ({format_bytes(ready.committed_bytes)})"
        )
        self._messages.note(
            "ready",
            f"ready after {ready.seconds:.1f}s; {how}",
            seconds=round(ready.seconds, 3),
            shared=not ready.refused,
            committed_bytes=ready.committed_bytes,
        )

    def _yield(self, request: "YieldRequest") -> None:
        grace = None if request.grace is None else request.grace.total_seconds()
        bound = "" if grace is None else f", and will take it in {grace:g}s"
        detail = f": {request.detail}" if request.detail else ""
        told = "" if self._on_yield is None else f"; the command gets {self._on_yield.name}"
        self._messages.note(
            "yield_requested",
            f"the arbiter asks for the GPU ({request.reason}{detail}){bound}{told}",
            reason=request.reason,
            grace_seconds=grace,
        )
        if self._on_yield is not None:
            self.signalled = True
            self._command.send(self._on_yield)
