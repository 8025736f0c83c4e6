"""The kinds of limits that a field can have; each checks a value."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import Any

from google.protobuf.descriptor import EnumDescriptor

from gpuarbiter_server.config.units import format_duration

# Memory figures fit a signed 64-bit number: what is beyond any GPU but below it is INFEASIBLE, not invalid.
MOST_BYTES = 2**63 - 1
_NANOS = 1_000_000_000
# The last second of the year 9999, as google.protobuf.Timestamp has it.
_LAST_SECOND = 253_402_300_799

# No control characters, line separators or marks that turn the direction of text: names end in logs and tables.
PRINTABLE = r"[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+"

_compiled = cache(re.compile)


@dataclass(frozen=True, slots=True)
class Text:
    """A string: so many characters at most, all of it of a pattern unless it is empty."""

    longest: int
    pattern: str = PRINTABLE
    required: bool = False

    def check(self, value: str) -> str | None:
        """What is wrong with it; None when nothing is."""
        if not value:
            return "must not be empty" if self.required else None
        if len(value) > self.longest:
            return f"has {len(value)} characters, at most {self.longest} are allowed"
        if not _compiled(self.pattern).fullmatch(value):
            return "must be printable" if self.pattern == PRINTABLE else f"must match {self.pattern}"
        return None


@dataclass(frozen=True, slots=True)
class Number:
    """An integer within bounds."""

    least: int = 0
    most: int = MOST_BYTES
    required: bool = False

    def check(self, value: int) -> str | None:
        """What is wrong with it; None when nothing is."""
        if self.required and not value:
            return "must be given"
        if not self.least <= value <= self.most:
            return f"is {value}, allowed are {self.least} to {self.most}"
        return None


@dataclass(frozen=True, slots=True)
class Span:
    """A google.protobuf.Duration within bounds, in seconds."""

    most: float
    least: float = 0.0

    def check(self, value: Any) -> str | None:
        """What is wrong with it; None when nothing is."""
        if abs(value.nanos) >= _NANOS or value.seconds * value.nanos < 0:
            return "is not a valid duration: nanos out of range, or of the other sign than seconds"
        # In whole nanoseconds: floating point would let the last of them through.
        nanos = value.seconds * _NANOS + value.nanos
        if not round(self.least * _NANOS) <= nanos <= round(self.most * _NANOS):
            return f"is {Decimal(nanos).scaleb(-9).normalize():f}s, allowed are {self}"
        return None

    def __str__(self) -> str:
        return f"{format_duration(self.least)} to {format_duration(self.most)}"


@dataclass(frozen=True, slots=True)
class Moment:
    """A google.protobuf.Timestamp of our era."""

    def check(self, value: Any) -> str | None:
        """What is wrong with it; None when nothing is."""
        valid = 0 <= value.nanos < _NANOS and 0 <= value.seconds <= _LAST_SECOND
        return None if valid else "is not a valid timestamp from 1970 on"

    def __str__(self) -> str:
        return "1970 to 9999"


@dataclass(frozen=True, slots=True)
class Choice:
    """An enum: one of the values that this version knows."""

    enum: EnumDescriptor
    required: bool = False

    def check(self, value: int) -> str | None:
        """What is wrong with it; None when nothing is."""
        if value not in self.enum.values_by_number:
            return f"is {value}, which is no {self.enum.name}"
        return "must be given" if self.required and not value else None


@dataclass(frozen=True, slots=True)
class Flag:
    """A bool: both values are fine."""

    def check(self, _value: bool) -> str | None:
        """Nothing is ever wrong with it."""
        return None

    def __str__(self) -> str:
        return "true or false"


@dataclass(frozen=True, slots=True)
class Part:
    """A message of the table, by its own rows."""

    required: bool = False


@dataclass(frozen=True, slots=True)
class Items:
    """A list: so many entries at most, each within its limit."""

    most: int
    each: Text

    def check(self, values: Any) -> Iterator[tuple[str, str]]:
        """What is wrong with it: suffix of the path, description."""
        if len(values) > self.most:
            yield "", f"has {len(values)} entries, at most {self.most} are allowed"
            return
        for number, value in enumerate(values):
            problem = self.each.check(value)
            if problem:
                yield f"[{number}]", problem


@dataclass(frozen=True, slots=True)
class Table:
    """A map of strings: so many entries at most, keys and values within their limits."""

    most: int
    key: Text
    value: Text

    def check(self, values: Any) -> Iterator[tuple[str, str]]:
        """What is wrong with it: suffix of the path, description."""
        if len(values) > self.most:
            yield "", f"has {len(values)} entries, at most {self.most} are allowed"
            return
        for number, (key, value) in enumerate(sorted(values.items())):
            problem = self.key.check(key) or self.value.check(value)
            if problem:
                yield f"[{number}]", problem


Limit = Text | Number | Span | Moment | Choice | Flag | Part | Items | Table


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition over several fields of a message; names the field that a violation is put down to."""

    field: str
    holds: Callable[[Any], bool]
    description: str


@dataclass(frozen=True, slots=True)
class Rows:
    """The limits of one message."""

    fields: Mapping[str, Limit]
    rules: tuple[Rule, ...] = field(default=())
