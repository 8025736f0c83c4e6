"""Between a running command and what happens meanwhile: signals, yield requests, the loss of the lease.

Law: one loop, one event at a time; whoever has news puts it into the queue.
"""

import queue
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpuarbiter.cli.output import Messages
from gpuarbiter.cli.process import CONTINUE, KILL, Exited, ProcessGroup, Stopped

if TYPE_CHECKING:
    from gpuarbiter import YieldRequest


@dataclass(frozen=True, slots=True)
class Signalled:
    """A signal that is meant for the command."""

    number: int


@dataclass(frozen=True, slots=True)
class Lost:
    """The lease is lost."""

    reason: str
    detail: str


class Supervisor:
    """Carries events to the command until it ends."""

    def __init__(self, group: ProcessGroup, messages: Messages, events: "queue.SimpleQueue[object]") -> None:
        self._group = group
        self._messages = messages
        self._events = events
        self._kill_at: float | None = None
        self.lost = False
        self.signalled = False

    def follow(self, grace_seconds: float) -> int:
        """Until the command ended; its exit code. Once its lease is lost it has that grace before it is killed."""
        while True:
            try:
                event = self._events.get(timeout=self._patience())
            except queue.Empty:
                self._kill_at = None
                self._group.send(KILL)
                continue
            if isinstance(event, Exited):
                return event.code
            self._take(event)
            if self.lost and self._kill_at is None:
                self._kill_at = time.monotonic() + grace_seconds

    def _patience(self) -> float | None:
        return None if self._kill_at is None else max(0.0, self._kill_at - time.monotonic())

    def _take(self, event: object) -> None:
        if isinstance(event, Signalled):
            self.signalled = True
            self._group.send(event.number)
        elif isinstance(event, Lost):
            self.lost = True
            why = f"{event.reason}: {event.detail}" if event.detail else event.reason
            self._messages.error(f"the lease is lost ({why}); ending the command", reason=event.reason)
            self._group.send(signal.SIGTERM)
            self._group.send(CONTINUE)
        elif isinstance(event, Stopped):
            self._resume(event.signal)
        else:
            self._say_yield(event)

    def _resume(self, number: int) -> None:
        # A stopped command would sit on the GPU; and one that touched the terminal before it was handed
        # over was stopped for that alone. SIGSTOP is somebody's deliberate act, and stays.
        if number == signal.SIGSTOP:
            return
        if number == signal.SIGTSTP:
            self._messages.note("resumed", "a command cannot be stopped while it holds a GPU; it goes on")
        self._group.send(CONTINUE)

    def _say_yield(self, asked: Any) -> None:
        request: YieldRequest = asked
        grace = "" if request.grace is None else f", and will take it in {request.grace.total_seconds():g}s"
        detail = f": {request.detail}" if request.detail else ""
        self._messages.note(
            "yield_requested",
            f"the arbiter asks for the GPU ({request.reason}{detail}){grace}",
            reason=request.reason,
            grace_seconds=None if request.grace is None else request.grace.total_seconds(),
        )
