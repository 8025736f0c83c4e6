"""What one line of the checklist says."""

from enum import Enum
from typing import NamedTuple


class Status(Enum):
    """How a line came out. SKIP: it could not be looked at, as others use the arbiter; that is no failure."""

    PASS = "PASS"  # noqa: S105 -- no password
    FAIL = "FAIL"
    SKIP = "SKIP"


class Line(NamedTuple):
    """One thing that was looked at, how it came out, and what was found."""

    check: str
    status: Status
    found: str


def judged(check: str, right: object, found: str) -> Line:
    """PASS when it is right, otherwise FAIL."""
    return Line(check, Status.PASS if right else Status.FAIL, found)


def listed(names: list[str], most: int = 3) -> str:
    """Names for a line: the first few, and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
