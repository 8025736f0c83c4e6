"""What commands say: results on stdout, everything about them on stderr."""

import json
import sys
from typing import Any, TextIO


class Messages:
    """Lines on stderr, for people or, with --json, for programs."""

    def __init__(self, *, as_json: bool = False) -> None:
        self._as_json = as_json
        self._progress = False
        self._live = not as_json and sys.stderr.isatty()

    def note(self, event: str, text: str, **facts: Any) -> None:
        """Something happened: `text` for people, `event` and `facts` for programs."""
        self.clear()
        line = json.dumps({"event": event, "message": text, **facts}) if self._as_json else f"gpu-arbiter: {text}"
        _write(sys.stderr, f"{line}\n")

    def remark(self, event: str, text: str, **facts: Any) -> None:
        """As a note, but for people only where they look: on a terminal."""
        if self._as_json or self._live:
            self.note(event, text, **facts)

    def result(self, text: str) -> None:
        """What the command was asked for."""
        _write(sys.stdout, f"{text}\n")

    def error(self, text: str, *, reason: str = "") -> None:
        """The command failed."""
        people = f"error: {text}" + (f" [{reason}]" if reason else "")
        self.note("error", text if self._as_json else people, reason=reason)

    def progress(self, text: str, **facts: Any) -> None:
        """How it stands: one line that each next one replaces, on a terminal only; with --json a line each."""
        if self._as_json:
            self.note("progress", text, **facts)
        elif self._live:
            _write(sys.stderr, f"\r\x1b[Kgpu-arbiter: {text}")
            self._progress = True

    def clear(self) -> None:
        """Takes the progress line away."""
        if self._progress:
            _write(sys.stderr, "\r\x1b[K")
            self._progress = False


def _write(to: TextIO, text: str) -> None:
    to.write(text)
    to.flush()
