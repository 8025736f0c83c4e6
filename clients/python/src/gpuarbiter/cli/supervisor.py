"""Between a running command and what happens meanwhile: signals, yield requests, readiness, the loss of the lease.

Law: one loop, one event at a time; whoever has news puts it into the queue.
"""

import queue
import signal
import time
from typing import TYPE_CHECKING

from gpuarbiter._units import format_bytes
from gpuarbiter._guard.family import CONTINUE, KILL
from gpuarbiter.cli.news import Asked, Exited, GuardLost, Lost, NotReady, Ready, Signalled, Stopped, StopRefused
from gpuarbiter.cli.output import Messages
from gpuarbiter.cli.process import Command

if TYPE_CHECKING:
    from gpuarbiter import YieldRequest


class Supervisor:
    """Carries events to the command until it ends."""

    def __init__(
        self,
        command: Command,
        messages: Messages,
        events: "queue.SimpleQueue[object]",
        on_yield: signal.Signals | None = None,
    ) -> None:
        self._command = command
        self._messages = messages
        self._events = events
        self._on_yield = on_yield
        self._kill_at: float | None = None
        # gpu-arbiter's own failure, whatever the command's exit code is.
        self.failed = False
        # Somebody wanted it to end.
        self.signalled = False

    def follow(self, grace_seconds: float) -> int | None:
        """Until the command ended; its exit code, None when that will never be known.

        Once the lease is lost, or it was not ready in time, it has that grace before it is killed.
        """
        while True:
            try:
                event = self._events.get(timeout=self._patience())
            except queue.Empty:
                self._kill_at = None
                self._command.send(KILL)
                continue
            if isinstance(event, Exited):
                return event.code
            if isinstance(event, GuardLost):
                self._messages.error("the guard process is gone, and the lease with it; ending the command")
                self.failed = True
                return None
            before = self.failed
            self._take(event)
            if self.failed and not before:
                self._kill_at = time.monotonic() + grace_seconds

    def _patience(self) -> float | None:
        return None if self._kill_at is None else max(0.0, self._kill_at - time.monotonic())

    def _take(self, event: object) -> None:
        match event:
            case Signalled(number, ending):
                self.signalled |= ending
                self._command.send(number)
            case Lost(reason, detail):
                why = f"{reason}: {detail}" if detail else reason
                self._end(f"the lease is lost ({why}); ending the command", reason)
            case NotReady(seconds, problem):
                self._end(f"not ready after {seconds:.0f}s ({problem}); ending the command", "NOT_READY")
            case Ready():
                self._say_ready(event)
            case Stopped(number):
                self._resume(number)
            case StopRefused():
                self._refuse_stop()
            case Asked(request):
                self._yield(request)

    def _end(self, why: str, reason: str) -> None:
        if self.failed:
            return
        self.failed = True
        self._messages.error(why, reason=reason)
        self._command.send(signal.SIGTERM)
        self._command.send(CONTINUE)

    def _resume(self, number: int) -> None:
        # A stopped command would sit on the GPU; and one that touched the terminal before it was handed
        # over was stopped for that alone. SIGSTOP is somebody's deliberate act, and stays.
        if number == signal.SIGSTOP:
            return
        if number == signal.SIGTSTP:
            self._refuse_stop()
        self._command.send(CONTINUE)

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
