"""What becomes of a damaged file of the history: it gets another name, for whoever can still read it.

Law: the newest few are kept; a disk that damages one file after another does not fill up with them.
"""

from collections.abc import Iterator
from pathlib import Path

# Files that are kept.
MOST_ASIDE = 3
_WORD = ".damaged-"


def set_aside(path: Path) -> Path:
    """Gives the file, and its log, a name that is not taken; returns it. Raises OSError."""
    numbers = sorted(_numbers(path))
    for old in numbers[: 1 - MOST_ASIDE]:
        for suffix in ("", "-wal"):
            _aside(path, old, suffix).unlink(missing_ok=True)
    free = max(numbers, default=0) + 1
    log = path.with_name(path.name + "-wal")
    if log.exists():
        log.replace(_aside(path, free, "-wal"))
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
    return path.replace(_aside(path, free))


def any_aside(path: Path) -> bool:
    """Whether there was another file before this one."""
    return next(_numbers(path), None) is not None


def _aside(path: Path, number: int, suffix: str = "") -> Path:
    return path.with_name(f"{path.name}{_WORD}{number}{suffix}")


def _numbers(path: Path) -> Iterator[int]:
    for other in path.parent.glob(f"{path.name}{_WORD}*"):
        number = other.name.removeprefix(path.name + _WORD)
        if number.isdecimal():
            yield int(number)
