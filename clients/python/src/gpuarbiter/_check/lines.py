"""What one line of the checklist says."""

from enum import Enum
from typing import NamedTuple


class Status(Enum):
    """How a line came out.

    WARN: it works, but not as well as it could. SKIP: it could not be looked at, as others use the arbiter. Neither
    is a failure.
    """

    PASS = "PASS"  # noqa: S105 -- no password
    WARN = "WARN"
    FAIL = "FAIL"
    SKIP = "SKIP"


class Line(NamedTuple):
    """One thing that was looked at, how it came out, what was found, and what to do about it."""

    check: str
    status: Status
    found: str
    todo: str = ""


def judged(check: str, right: object, found: str) -> Line:
    """PASS when it is right, otherwise FAIL."""
    return Line(check, Status.PASS if right else Status.FAIL, found)


def listed(names: list[str], most: int = 3) -> str:
    """Names for a line: the first few, and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
