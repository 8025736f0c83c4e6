"""Sizes and durations as people write them: "6GiB", "400ms".

Law: one number and one unit, or a plain number; anything else is a ValueError (another type: a TypeError)
that names the value and what is allowed. Nothing is guessed: "6G" is refused, because it could mean either
of two sizes.
"""

import math
import re
from datetime import timedelta
from decimal import Decimal

# Bytes as a number, or as text with a unit.
Size = int | str
# Seconds as a number, text with a unit, or a timedelta.
Duration = float | str | timedelta

_BYTES = {
    "B": 1,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_MICROSECONDS = {"us": 1, "ms": 10**3, "s": 10**6, "m": 60 * 10**6, "h": 3600 * 10**6, "d": 86400 * 10**6}
_MAX_BYTES = 2**64 - 1
# What google.protobuf.Duration holds: 10,000 years.
_MAX_MICROSECONDS = 315_576_000_000 * 10**6
_WRITTEN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", re.ASCII)


def parse_bytes(value: Size) -> int:
    """A size in bytes: 6442450944, "6GiB", "512MiB", "1.5GB" (KiB counts in 1024, kB in 1000)."""
    allowed = 'write a number of bytes, or a size such as "512MiB" or "6GiB"'
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError(f"{value!r} is not a size; {allowed}")
    if isinstance(value, int):
        size = value
    else:
        number, unit = _split(value, "a size", allowed)
        factor = _BYTES.get(unit.upper() or "B")
        if factor is None:
            raise ValueError(f"{value!r} is not a size: {unit!r} is no unit; {allowed}")
        size = int(number * factor)
    if not 0 <= size <= _MAX_BYTES:
        raise ValueError(f"{value!r} is out of range; {allowed}")
    return size


def parse_duration(value: Duration) -> timedelta:
    """A duration: 3, 0.4 (seconds), "400ms", "3s", "10m", "2h", or a timedelta; never negative."""
    allowed = 'write seconds as a number, or a duration such as "400ms", "3s" or "10m"'
    if isinstance(value, timedelta):
        microseconds = value // timedelta(microseconds=1)
    elif isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError(f"{value!r} is not a duration; {allowed}")
    elif isinstance(value, str):
        number, unit = _split(value, "a duration", allowed)
        factor = _MICROSECONDS.get(unit or "s")
        if factor is None:
            raise ValueError(f"{value!r} is not a duration: {unit!r} is no unit; {allowed}")
        microseconds = int(number * factor)
    elif not math.isfinite(value):
        raise ValueError(f"{value!r} is not a duration; {allowed}")
    else:
        microseconds = round(value * 10**6)
    if not 0 <= microseconds <= _MAX_MICROSECONDS:
        raise ValueError(f"{value!r} is out of range; {allowed}")
    return timedelta(microseconds=microseconds)


def _split(text: str, what: str, allowed: str) -> tuple[Decimal, str]:
    match = _WRITTEN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not {what}; {allowed}")
    return Decimal(match[1]), match[2]


def format_bytes(size: int) -> str:
    """A size for people: "6.0 GiB"; exact figures belong in JSON."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:  # noqa: PLR2004 -- what these units count in
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def format_duration(duration: timedelta) -> str:
    """A duration for people: "0.4s", "12s", "3m05s", "2h14m"."""
    seconds = duration.total_seconds()
    if seconds < 10:  # noqa: PLR2004 -- below it the tenths are of interest
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
