"""Durations and sizes as people write them, and back.

Law: text and number say exactly the same; what is formatted here parses to the number it came from.
Durations are seconds in code, and always carry a unit in text, because a bare 3 has been read as
milliseconds before. Sizes are bytes, by powers of 1024 only: 24GB would leave open which GB is meant.
"""

import re
from decimal import Decimal

MAX_DURATION = 365 * 86400.0
MAX_SIZE = 1024**5

DURATION_FORM = "a duration such as 400ms, 3s, 10m, 1h or 1d"
SIZE_FORM = "a size such as 512MiB or 24GiB, or a whole number of bytes"

_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}
_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
# The digits are limited so that no text costs more to read than it is long.
_NUMBER = r"[0-9]{1,16}(?:\.[0-9]{1,6})?"
DURATION_PATTERN = rf"^({_NUMBER})(ms|s|m|h|d)$"
SIZE_PATTERN = rf"^({_NUMBER})(B|KiB|MiB|GiB|TiB)$"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def parse_duration(value: object) -> float:
    """Seconds of "400ms", "3s", "1.5h" or 0.

    Raises:
        ValueError: with what is allowed; at most 365 days.
    """
    if _is_number(value):
        if value == 0:
            return 0.0
        # A unit makes sense only where the number would then be a duration.
        example = f"{value}s" if re.fullmatch(_NUMBER, str(value)) else "3s"
        raise ValueError(f"{DURATION_FORM}: the unit is missing, write {example}")
    match = re.fullmatch(DURATION_PATTERN, value) if isinstance(value, str) else None
    if not match:
        raise ValueError(DURATION_FORM)
    seconds = float(Decimal(match[1]) * _SECONDS[match[2]])
    if seconds > MAX_DURATION:
        raise ValueError(f"{DURATION_FORM}, at most {format_duration(MAX_DURATION)}")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest exact text: 0.4 is "400ms", 3.0 is "3s", 90.0 is "90s", 3600.0 is "1h"."""
    # repr() has the fewest digits that mean this very float, so that they parse back to it.
    exact = Decimal(repr(float(seconds)))
    if not exact:
        return "0s"
    for unit in ("d", "h", "m", "s"):
        if exact % _SECONDS[unit] == 0:
            return f"{int(exact / _SECONDS[unit])}{unit}"
    return f"{(exact / _SECONDS['ms']).normalize():f}ms"


def parse_size(value: object) -> int:
    """Bytes of "512MiB", "24GiB", "1.5GiB" or a whole number of bytes.

    Raises:
        ValueError: with what is allowed; at most 1 PiB.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        exact = Decimal(min(value, MAX_SIZE + 1))
    else:
        match = re.fullmatch(SIZE_PATTERN, value) if isinstance(value, str) else None
        if not match:
            decimal = re.fullmatch(rf"({_NUMBER}) ?([KMGT])i?[Bb]?", value) if isinstance(value, str) else None
            raise ValueError(SIZE_FORM + (f": write {decimal[1]}{decimal[2]}iB" if decimal else ""))
        exact = Decimal(match[1]) * _BYTES[match[2]]
    if exact < 0 or exact != int(exact):
        raise ValueError(f"{SIZE_FORM}: whole bytes, 0 or more")
    if exact > MAX_SIZE:
        raise ValueError(f"{SIZE_FORM}, at most {format_size(MAX_SIZE)}")
    return int(exact)


def format_size(size: int) -> str:
    """The largest unit that divides it: 25769803776 is "24GiB", 1000 is "1000B"."""
    unit = max((unit for unit, factor in _BYTES.items() if size % factor == 0), key=_BYTES.__getitem__)
    return f"{size // _BYTES[unit]}{unit}" if size else "0B"
