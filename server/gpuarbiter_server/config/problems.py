"""What is wrong with a configuration, said so that nobody needs the manual to mend it.

Law: a problem names the key, the value, where it was written and what is allowed there; all problems
are told at once. The value of an unknown key is never shown: a mistyped variable may hold a secret.
"""

import difflib
import re
import reprlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

_MAX_LINES = 100
UNKNOWN_KEY = "unknown key"

# Where a key stands: the names from the top down; positions in a list are numbers as text.
Path = tuple[str, ...]

_shorten = reprlib.Repr()
_shorten.maxstring = _shorten.maxother = 80
_shorten.maxlevel = 3


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that keeps a configuration from being used."""

    # Dotted, as an override names it; empty when it is about the whole.
    key: str
    # As it was written; None where it does not matter, or may be a secret.
    value: Any
    # A file with its line, an environment variable, a flag, or the like.
    source: str
    # What may stand there, or what to do instead.
    allowed: str
    # What is wrong, where it is not that the value is not allowed.
    wrong: str = ""

    def __str__(self) -> str:
        """One line."""
        key = f"{self.key}: " if self.key else ""
        if self.wrong:
            return f"{key}{self.wrong} ({self.source}); {self.allowed}"
        return f"{key}{shown(self.value)} is not allowed ({self.source}); expected {self.allowed}"


class ConfigError(Exception):
    """The configuration cannot be used. `problems` holds every reason."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        """A heading, and a line for each problem, up to a hundred of them."""
        count = len(self.problems)
        heading = f"the configuration has {count} problem{'s' if count != 1 else ''}:"
        more = [f"and {count - _MAX_LINES} more"] if count > _MAX_LINES else []
        return "\n  ".join((heading, *map(str, self.problems[:_MAX_LINES]), *more))


class Fault(NamedTuple):
    """A problem before it is known where in the whole it stands, and who wrote it."""

    path: Path
    value: Any
    allowed: str
    wrong: str = ""


class Rejection(ValueError):  # noqa: N818 -- it never leaves this room: ConfigError does
    """Raised by a check that finds more than one fault, or faults below its own key."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(fault.allowed for fault in faults))
        self.faults = tuple(faults)


def not_shown(allowed: str) -> Rejection:
    """A value that is not allowed, and may be a secret or hold one."""
    return Rejection([Fault((), None, allowed, wrong="not allowed")])


def dotted(path: Path) -> str:
    """A path as one text; what is no plain name is quoted."""
    return ".".join(name if re.fullmatch(r"[\w-]+", name, re.ASCII) else f'"{_escaped(name)}"' for name in path)


def _escaped(name: str) -> str:
    return _shorten.repr(name)[1:-1].replace('"', '\\"')


def shown(value: object) -> str:
    """A value as it would be written, shortened."""
    if isinstance(value, bool):
        return str(value).lower()
    return _shorten.repr(value)


def unknown_key(name: str, allowed: Collection[str], elsewhere: Iterable[str] = ()) -> str:
    """What is allowed in place of an unknown key, with the one that was probably meant.

    `elsewhere`: dotted keys of other places, for those who have the right name in the wrong place.
    """
    snake = re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower().replace("-", "_").removesuffix("_ms")
    near = difflib.get_close_matches(snake, list(allowed), n=1) or [
        key for key in elsewhere if key.endswith("." + snake)
    ]
    meant = f"; did you mean {near[0]}?" if near else ""
    return f"allowed here: {', '.join(allowed)}{meant}"
