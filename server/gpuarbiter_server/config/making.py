"""A file of today in the making, out of an older one.

Law: nothing is lost in silence: what is not taken over is named in a note, without its value. Lines are those of the
older file, so that a problem with what was made is told where people can mend it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from gpuarbiter_server.config.layers import Layer, Stack
from gpuarbiter_server.config.problems import Path, Problem, dotted

SOURCE = "the older configuration"


class Making:
    """What has been taken over so far. lines: of the older file."""

    def __init__(self, lines: Mapping[Path, int]) -> None:
        self.made: dict[str, Any] = {}
        self.notes: list[str] = []
        self._lines: dict[Path, int] = {}
        self._old_lines = lines
        self._problems: list[Problem] = []

    def put(self, path: Path, value: Any, old: Path) -> None:
        """Takes a value over, from where it was; None is none."""
        if value is None:
            return
        place = self.made
        for name in path[:-1]:
            place = place.setdefault(name, {})
        place[path[-1]] = value
        line = self._old_lines.get(old)
        if line:
            self._lines[path] = line

    def leave_out(self, old: Iterable[Path]) -> None:
        """Notes what has no equivalent."""
        self.notes += [f"{dotted(path)} has no equivalent and was left out." for path in old]

    def refuse(self, old: Path, value: Any, allowed: str) -> None:
        """Notes a value that could not be taken over."""
        self._problems.append(Problem(dotted(old), value, Layer(SOURCE, None, self._old_lines).where(old), allowed))

    def check(self) -> None:
        """Raises ConfigError unless what was made would load."""
        stack = Stack()
        stack.add(Layer(SOURCE, self.made, self._lines), self._problems)
        stack.config()
