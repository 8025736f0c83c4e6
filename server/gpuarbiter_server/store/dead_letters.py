"""What could not be delivered, for people to look at and to deliver by hand: a file of JSON lines.

Law: bounded. A file that is full becomes `….1`, in place of the one before it. A thread writes, and whoever buries
something does not wait for the disk, nor is failed by one that is full: that is logged, with what was to be written.
"""

import json
import logging
import os
import queue
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

NAME = "dead-letters.jsonl"
_MOST_BYTES = 1024**2
_MOST_WAITING = 20_000


class DeadLetters:
    """Those of one arbiter, in its state directory."""

    def __init__(self, directory: Path, *, most_bytes: int = _MOST_BYTES) -> None:
        self._path = directory / NAME
        self._most_bytes = most_bytes
        # None: no more will come.
        self._waiting: queue.Queue[bytes | None] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._write_forever, name="dead-letters", daemon=True)

    def start(self) -> None:
        """Writes from now on."""
        self._thread.start()

    def bury(self, letter: Mapping[str, Any]) -> None:
        """Puts one to the others."""
        line = json.dumps(letter).encode() + b"\n"
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            self._lost("the disk is too slow", line)

    def close(self) -> None:
        """Returns when everything is written."""
        self._waiting.put(None)
        self._thread.join()

    def _write_forever(self) -> None:
        while (line := self._waiting.get()) is not None:
            try:
                self._append(line)
            except OSError as error:
                self._lost(str(error), line)

    def _append(self, line: bytes) -> None:
        # Only who runs the arbiter is to read what it tells of its holders.
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            written = os.fstat(file).st_size
            if not written or written + len(line) <= self._most_bytes:
                os.write(file, line)
                return
        finally:
            os.close(file)
        self._path.replace(self._path.with_name(f"{NAME}.1"))
        self._append(line)

    def _lost(self, why: str, line: bytes) -> None:
        log.error("not written to %s: %s: %s", self._path, why, line.decode().rstrip())
