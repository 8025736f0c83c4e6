"""Layers of configuration, each a merge patch on the one below, and who said what.

Law: every problem of every layer is kept until the end, and named with the source that would have to
be changed to mend it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from gpuarbiter_server.config.keys import shape_faults
from gpuarbiter_server.config.model import Config, merged
from gpuarbiter_server.config.problems import ConfigError, Fault, Path, Problem, dotted


@dataclass(frozen=True)
class Layer:
    """What one source says, as a tree from the top."""

    source: str
    value: Any
    # Where the source is a text of many lines.
    lines: Mapping[Path, int]
    # False: that its keys exist is checked, and nothing else is done with it.
    counts: bool = True

    def says(self, path: Path) -> bool:
        """Whether the value at a path, or of something around it, comes from here."""
        value = self.value
        for name in path:
            if not isinstance(value, dict):
                return True
            if name not in value:
                return False
            value = value[name]
        return True

    def where(self, path: Path) -> str:
        """The source, with the line of the nearest thing around the path that has one."""
        known = (self.lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self.lines)
        line = next(known, None)
        return self.source if line is None else f"{self.source} line {line}"


class Stack:
    """The layers so far, and what they come to."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {}
        self.problems: list[Problem] = []
        self._layers: list[Layer] = []

    def add(self, layer: Layer, problems: Sequence[Problem] = ()) -> None:
        """Checks the shape of a layer and puts it on top. `problems`: those met when it was read."""
        self.problems += problems
        if layer.value is None:
            return
        if not isinstance(layer.value, dict):
            self.problems.append(Problem("", layer.value, layer.source, "a mapping of keys to values"))
            return
        self.problems += [_problem(fault, layer.where(fault.path)) for fault in shape_faults(layer.value)]
        if layer.counts:
            self.tree = merged(self.tree, layer.value)
            self._layers.append(layer)

    def config(self) -> Config:
        """What the layers come to.

        Raises:
            ConfigError: with everything that was found in any layer.
        """
        try:
            config = Config.model_validate(self.tree)
        except ValidationError as error:
            self.problems += [_problem(fault, self._where(fault.path)) for fault in _faults(error)]
            raise ConfigError(self.problems) from None
        if self.problems:
            raise ConfigError(self.problems)
        return config

    def _where(self, path: Path) -> str:
        for layer in reversed(self._layers):
            if layer.says(path):
                return layer.where(path)
        # What a policy does not say comes from the defaults.
        return self._where(("defaults", *path[2:])) if path[:1] == ("policies",) else "default"


def _problem(fault: Fault, source: str) -> Problem:
    return Problem(dotted(fault.path), fault.value, source, fault.allowed, fault.wrong)


def _faults(error: ValidationError) -> Iterator[Fault]:
    for found in error.errors(include_url=False):
        at = tuple(str(part) for part in found["loc"])
        cause = found.get("ctx", {}).get("error")
        for fault in getattr(cause, "faults", (Fault((), found["input"], str(cause or found["msg"])),)):
            yield fault._replace(path=(*at, *fault.path))
