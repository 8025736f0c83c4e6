"""The terminal, lent to the command and taken back.

Law: it is lent when the command wants it (who reads from it in the background is stopped), and only while it is ours
to lend. So in a pipeline (`run … | less`) the others keep it, Ctrl-C reaches all of them, and a shell script that is
interrupted ends as it would without us.
"""

import os
import signal
from types import TracebackType
from typing import Self

_DEVICE = "/dev/tty"


class Terminal:
    """The controlling terminal, if there is one.

    inner: this is a run inside a run, which has no lease to keep and may be stopped.
    """

    def __init__(self, *, inner: bool = False) -> None:
        self._inner = inner
        self._lent = False
        self._descriptor = _controlling_terminal()

    def lend(self, group: int) -> bool:
        """Makes a process group the one that reads, and that Ctrl-C reaches. False: it is not ours, ask again later."""
        if self._descriptor is None:
            return True
        if not self._ours() and self._inner:
            # Stops us all until the run around us has lent it to our group, as a shell would.
            os.killpg(os.getpgrp(), signal.SIGTTIN)
        if not self._ours():
            return False
        # Or taking it back, from the background, would stop us. The command runs already, and does not inherit it.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        self._lent = True
        self._give_to(group)
        return True

    def _ours(self) -> bool:
        try:
            return self._descriptor is not None and os.tcgetpgrp(self._descriptor) == os.getpgrp()
        except OSError:  # it hung up
            return False

    def _give_to(self, group: int) -> None:
        try:
            os.tcsetpgrp(self._descriptor or 0, group)
        except OSError:  # the terminal is gone, or the group is
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lent:
            self._give_to(os.getpgrp())
        if self._descriptor is not None:
            os.close(self._descriptor)


def _controlling_terminal() -> int | None:
    if not hasattr(os, "tcgetpgrp"):
        return None
    try:
        return os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
