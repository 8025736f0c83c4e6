"""The terminal that the live view is drawn on.

Law: whatever ends the view, the terminal is as it was: its own screen, its cursor, its line mode.
"""

import contextlib
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

try:
    import termios
except ImportError:  # Windows: no keys but Ctrl-C
    termios = None  # type: ignore[assignment]

_ENTER = "\x1b[?1049h\x1b[?25l"
_LEAVE = "\x1b[?25h\x1b[?1049l"
_FALLBACK = os.terminal_size((80, 24))
TERMINATED = 128 + signal.SIGTERM


class Screen:
    """The alternate screen on stdout, and the keys on stdin where that is a terminal."""

    def __init__(self) -> None:
        self._before: list[Any] | None = None
        self._handlers: dict[int, Any] = {}
        self._keys: int | None = None
        # Sockets, because select on Windows knows nothing else.
        self._woken, self._wake = socket.socketpair()
        self._wake.setblocking(False)

    def wake(self) -> None:
        """Ends a `wait`; safe from any thread and from signal handlers."""
        with contextlib.suppress(OSError):
            self._wake.send(b"!")

    def size(self) -> os.terminal_size:
        """Columns and lines now."""
        try:
            size = os.get_terminal_size(sys.stdout.fileno())
        except (OSError, ValueError):
            return _FALLBACK
        return size if size.columns and size.lines else _FALLBACK

    def draw(self, lines: Sequence[str]) -> None:
        """Replaces what is on the screen."""
        rows = "".join(f"\x1b[{row};1H\x1b[K{line}" for row, line in enumerate(lines, start=1))
        rest = f"\x1b[{len(lines) + 1};1H\x1b[J" if len(lines) < self.size().lines else ""
        _write(rows + rest)

    def wait(self, seconds: float) -> str:
        """The keys that were pressed, once some were, or `wake` was called, or the time is over."""
        sources: list[Any] = [self._woken] if self._keys is None else [self._woken, self._keys]
        ready, _, _ = select.select(sources, [], [], seconds)
        if self._woken in ready:
            self._woken.recv(4096)
        if self._keys is None or self._keys not in ready:
            return ""
        pressed = os.read(self._keys, 64)
        if not pressed:  # the terminal is gone
            self._keys = None
        return pressed.decode("ascii", "replace")

    def __enter__(self) -> Self:
        for number, handler in ((getattr(signal, "SIGWINCH", None), self._resized), (signal.SIGTERM, _terminated)):
            if number is not None:
                self._handlers[number] = signal.signal(number, handler)
        if termios is not None and sys.stdin is not None and sys.stdin.isatty():
            self._take_keys(sys.stdin.fileno())
        _write(_ENTER)
        return self

    def _take_keys(self, keys: int) -> None:
        self._keys = keys
        self._before = termios.tcgetattr(keys)
        mode = termios.tcgetattr(keys)
        mode[3] &= ~(termios.ICANON | termios.ECHO)
        # Ctrl-Z would leave the shell on the other screen.
        mode[6][termios.VSUSP] = b"\0"
        termios.tcsetattr(keys, termios.TCSADRAIN, mode)

    def _resized(self, *_: object) -> None:
        self.wake()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # the terminal may be gone
            _write(_LEAVE)
        if self._before is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._before)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._woken.close()
        self._wake.close()


def _terminated(*_: object) -> None:
    raise SystemExit(TERMINATED)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
