"""Log lines on their way out: who logs hands a record over and goes on, a thread makes the line and writes it.

Law: a terminal, a pipe or a disk that does not take them costs whoever logs nothing; what finds too many waiting is
lost, and counted in a line of its own.
"""

import contextlib
import logging
import sys
import threading
from collections import deque

from gpuarbiter_server.telemetry.log_lines import Happened, Lines, lines

# Lines that may wait; a line takes about 200 bytes, and 3 KiB where its client has names as long as they may be.
_MOST_WAITING = 10_000
# Lines of this time are written together.
_GATHER_SECONDS = 0.01
_PATIENCE_SECONDS = 1.0


class LogWriter(logging.Handler):
    """Hands records to a thread that writes them to stderr."""

    def __init__(self) -> None:
        super().__init__()
        self._lines = lines("console")
        self._waiting: deque[logging.LogRecord | Happened] = deque()
        self._lost = 0
        self._news = threading.Event()
        self._hurry = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def set_lines(self, made: Lines) -> None:
        """How lines are made from now on."""
        self._lines = made

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a record; its arguments are looked at now, since they may change."""
        if record.args:
            try:
                record.msg, record.args = record.getMessage(), None
            except Exception:  # noqa: BLE001 -- whoever logs does not pay for a line that does not fit its arguments
                record.msg, record.args = f"{record.msg!r} {record.args!r}", None
        self.take(record)
        if record.levelno >= logging.WARNING:
            self._hurry.set()

    def take(self, record: logging.LogRecord | Happened) -> None:
        """Takes what is to be written; never waits."""
        if len(self._waiting) >= _MOST_WAITING:
            self._lost += 1
            return
        self._waiting.append(record)
        self._news.set()

    def close(self) -> None:
        """Writes what is left, for a second at most."""
        self._ending = True
        self._hurry.set()
        self._news.set()
        self._thread.join(_PATIENCE_SECONDS)
        super().close()

    def _run(self) -> None:
        while not self._ending:
            self._news.wait()
            self._hurry.wait(_GATHER_SECONDS)
            self._hurry.clear()
            self._news.clear()
            self._write()
        self._write()

    def _write(self) -> None:
        made = []
        while self._waiting:
            try:
                made.append(self._line(self._waiting.popleft()))
            except Exception as error:  # noqa: BLE001 -- a line that cannot be made must not end the others
                made.append(f"a log line could not be made: {error!r}")
        lost, self._lost = self._lost, 0
        if lost:
            made.append(f"{lost} log lines were lost: they came faster than they could be written")
        if made:
            # Nobody is there to be told that there is nowhere to tell it.
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write("\n".join(made) + "\n")
                sys.stderr.flush()

    def _line(self, record: logging.LogRecord | Happened) -> str:
        if isinstance(record, Happened):
            return self._lines.of_event(record)
        return self._lines.of_record.format(record)
