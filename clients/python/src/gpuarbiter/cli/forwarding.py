"""Signals to `gpu-arbiter run`: while it waits they end the wait, and once the command runs they are the command's.

Law: what was ignored before (nohup) stays so, and every handler is put back.
"""

import queue
import signal
from types import FrameType, TracebackType
from typing import Any, Self

from gpuarbiter.cli.news import Signalled, StopRefused

_ENDING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
# Of no meaning while there is no command: they keep what they do by themselves.
_PASSED_ON = ("SIGWINCH", "SIGCONT")
_STOPPING = ("SIGTSTP",)


class Interrupted(BaseException):
    """A signal came while nothing ran yet: the wait is over."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Signals:
    """The handlers, as long as the with-block lasts."""

    def __init__(self, events: "queue.SimpleQueue[object]") -> None:
        self._events = events
        self._forward = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._handle(_ENDING)
        # Who waits is not stopped either: it would get a GPU and sit on it.
        self._handle(_STOPPING)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def begin_forwarding(self) -> None:
        """From now on they are the command's."""
        self._forward = True
        self._handle(_PASSED_ON)

    def _handle(self, names: tuple[str, ...]) -> None:
        for name in names:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._take)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self._forward:
            self._events.put(StopRefused() if name in _STOPPING else Signalled(number, ending=name in _ENDING))
        elif name in _ENDING:
            raise Interrupted(number)
