"""The terminal, handed to the command and taken back.

Law: only a terminal that this command has in the foreground is handed on, and it is always taken back.
Without it, a command that reads from the terminal would be stopped at once: its group is not ours.
"""

import os
import signal
import sys
from types import TracebackType
from typing import Self


class Terminal:
    """Standard input, where it is a terminal and ours."""

    def __init__(self) -> None:
        self._descriptor = _foreground_terminal()

    def hand_to(self, group: int) -> None:
        """Makes a process group the one that reads, and that Ctrl-C reaches."""
        if self._descriptor is None:
            return
        # Or taking it back, from the background, would stop us. After the command began, which would
        # inherit it.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        self._set(group)

    def _set(self, group: int) -> None:
        try:
            os.tcsetpgrp(self._descriptor or 0, group)
        except OSError:  # the terminal is gone, or the group is
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            self._set(os.getpgrp())


def _foreground_terminal() -> int | None:
    if not hasattr(os, "tcgetpgrp"):
        return None
    try:
        descriptor = sys.stdin.fileno()
        return descriptor if os.tcgetpgrp(descriptor) == os.getpgrp() else None
    except (OSError, ValueError, AttributeError):  # no terminal, closed, or none at all
        return None
