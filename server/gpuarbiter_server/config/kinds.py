"""The kinds of value that a setting can have: how each is checked, written back and described.

Law: a kind is told once, here; the check, the error message, the JSON schema and the reference page
all take it from its definition. A check gets what the file says (a text, number, truth value or list)
and raises ValueError with what is allowed.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Any, TypeVar

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from gpuarbiter_server.config.problems import not_shown
from gpuarbiter_server.config.units import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)
from gpuarbiter_server.core.model import BusyPolicy, Placement
from gpuarbiter_server.core.model import Sharing as SharingMode
from gpuarbiter_server.core.policy import MAX_PRIORITY

MAX_COUNT = 1_000_000
MAX_NAMES = 100
_NAME_LENGTH = 256
# What a request may call itself (PRINTABLE of api.limits); and no half characters, which YAML can write.
_NAME_PATTERN = r"[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+"
MIN_INTERVAL = 0.01
MAX_INTERVAL = 60.0
TASK_TYPE_PATTERN = r"[A-Za-z0-9_.-]{1,64}"
_NODE_PATTERN = r"[A-Za-z0-9_.-]{1,253}"
_DURABILITIES = ("full", "relaxed", "memory")
_MODULE_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9_.]{0,127}"
LOG_FORMATS = ("console", "json")
_LOG_LEVELS = ("debug", "info", "warning", "error")

_E = TypeVar("_E", bound=IntEnum)


@dataclass(frozen=True, slots=True)
class Kind:
    """What people call the kind of a value; metadata of a field, for the reference page."""

    label: str


def one_of(words: list[str]) -> str:
    """The words as people list them: A, B or C."""
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def is_task_type(name: str) -> bool:
    """Whether a request could name it."""
    return re.fullmatch(TASK_TYPE_PATTERN, name) is not None


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")  # noqa: TRY004 -- pydantic takes no TypeError
    return value


def whole(low: int, high: int) -> Callable[[object], int]:
    """Checks for a whole number."""

    def check(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"a whole number, {low} to {high}")
        return value

    return check


def longer_than_zero(value: object) -> float:
    """A duration that is one; ValueError where it is none."""
    seconds = parse_duration(value)
    if not seconds:
        raise ValueError("a duration longer than 0s")
    return seconds


def number(high: float) -> Callable[[object], float]:
    """Checks for a number that is not below 0."""

    def check(value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= high:
            raise ValueError(f"a number, 0 to {high:g}")
        return value

    return check


def _file(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"|/[^\x00-\x1f]*", value):
        # Perhaps it is the secret itself.
        raise not_shown("the absolute path of a file, or an empty text")
    return value


def _interval(value: object) -> float:
    seconds = parse_duration(value)
    if not MIN_INTERVAL <= seconds <= MAX_INTERVAL:
        raise ValueError(f"a duration, {format_duration(MIN_INTERVAL)} to {format_duration(MAX_INTERVAL)}")
    return seconds


def _parse_wait(value: object) -> float | None:
    if value == "unlimited":
        return None
    try:
        return parse_duration(value)
    except ValueError as error:
        raise ValueError(f"unlimited, or {error}") from None


def _format_wait(seconds: float | None) -> str:
    return "unlimited" if seconds is None else format_duration(seconds)


def _parse_headroom(value: object) -> int | None:
    if value == "auto":
        return None
    try:
        return parse_size(value)
    except ValueError as error:
        raise ValueError(f"auto, or {error}") from None


def _format_headroom(size: int | None) -> str:
    return "auto" if size is None else format_size(size)


def names(enum: type[IntEnum]) -> list[str]:
    """What can be written for an enum: every name but the one for "not said"."""
    return [member.name for member in enum if member]


def _named(enum: type[_E]) -> Callable[[object], _E]:
    def check(value: object) -> _E:
        name = value.upper().replace("-", "_") if isinstance(value, str) else ""
        if name not in names(enum):
            raise ValueError(one_of(names(enum)))
        return enum[name]

    return check


def _name_of(member: IntEnum) -> str:
    return member.name


def word(words: tuple[str, ...]) -> Callable[[object], str]:
    """Checks for one of these, in any case."""

    def check(value: object) -> str:
        if not isinstance(value, str) or value.lower() not in words:
            raise ValueError(one_of(list(words)))
        return value.lower()

    return check


def _node(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(_NODE_PATTERN, value):
        raise ValueError(
            "auto (the host's name), or a text of up to 253 letters, digits and _.- (in quotes if it is a number)"
        )
    return value


def _names(value: object) -> tuple[str, ...]:
    allowed = f"a list of at most {MAX_NAMES} different texts of 1 to {_NAME_LENGTH} printable characters"
    if not isinstance(value, list | tuple) or len(value) > MAX_NAMES or len(set(map(str, value))) != len(value):
        raise ValueError(allowed)
    for name in value:
        if not isinstance(name, str) or len(name) > _NAME_LENGTH or not re.fullmatch(_NAME_PATTERN, name):
            raise ValueError(allowed)
    return tuple(value)


def _levels(value: object) -> dict[str, str]:
    allowed = f"a mapping of at most {MAX_NAMES} modules to {one_of(list(_LOG_LEVELS))}"
    if not isinstance(value, dict) or len(value) > MAX_NAMES:
        raise ValueError(allowed)
    found = {}
    for module, level in value.items():
        if not isinstance(module, str) or not re.fullmatch(_MODULE_PATTERN, module):
            raise ValueError(f"{allowed}; a module is a room such as store, or a logger's full name")
        if not isinstance(level, str) or level.lower() not in _LOG_LEVELS:
            raise ValueError(allowed)
        found[module] = level.lower()
    return found


def _folder(value: object) -> str:
    if not isinstance(value, str) or not (value == "auto" or re.fullmatch(r"/[^\x00-\x1f]*", value)):
        raise ValueError("auto, or the absolute path of a directory")
    return value


def _secret_file(value: object) -> str:
    if not isinstance(value, str) or not (value == "auto" or re.fullmatch(r"/[^\x00-\x1f]+", value)):
        # What stands there may be the secret itself.
        raise not_shown("auto, or the absolute path of a file that holds it")
    return value


def _on_stale(value: object) -> bool:
    return word(("declarations", "refuse"))(value) == "refuse"


def _format_on_stale(refuse: bool) -> str:
    return "refuse" if refuse else "declarations"


def _named_schema(enum: type[IntEnum]) -> WithJsonSchema:
    return WithJsonSchema({"enum": names(enum)})


def _text_or(words: list[str], *others: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [{"enum": words}, *others]})


_DURATION_SCHEMA: dict[str, Any] = {"anyOf": [{"type": "string", "pattern": DURATION_PATTERN}, {"const": 0}]}
_SIZE_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "string", "pattern": SIZE_PATTERN}, {"type": "integer", "minimum": 0}]
}

_duration_text = PlainSerializer(format_duration)

Flag = Annotated[bool, PlainValidator(_flag), WithJsonSchema({"type": "boolean"}), Kind("true or false")]
Count = Annotated[
    int,
    PlainValidator(whole(0, MAX_COUNT)),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MAX_COUNT}),
    Kind("whole number"),
]
Priority = Annotated[
    int,
    PlainValidator(whole(0, MAX_PRIORITY)),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MAX_PRIORITY}),
    Kind(f"0 to {MAX_PRIORITY}"),
]
Duration = Annotated[
    float, PlainValidator(parse_duration), _duration_text, WithJsonSchema(_DURATION_SCHEMA), Kind("duration")
]
PositiveDuration = Annotated[
    float,
    PlainValidator(longer_than_zero),
    _duration_text,
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN}),
    Kind("duration"),
]
Interval = Annotated[
    float,
    PlainValidator(_interval),
    _duration_text,
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN}),
    Kind(f"duration, {format_duration(MIN_INTERVAL)} to {format_duration(MAX_INTERVAL)}"),
]
Wait = Annotated[
    float | None,
    PlainValidator(_parse_wait),
    PlainSerializer(_format_wait),
    _text_or(["unlimited"], _DURATION_SCHEMA),
    Kind("duration or unlimited"),
]
Size = Annotated[
    int, PlainValidator(parse_size), PlainSerializer(format_size), WithJsonSchema(_SIZE_SCHEMA), Kind("size")
]
Headroom = Annotated[
    int | None,
    PlainValidator(_parse_headroom),
    PlainSerializer(_format_headroom),
    _text_or(["auto"], _SIZE_SCHEMA),
    Kind("auto or size"),
]
Busy = Annotated[
    BusyPolicy,
    PlainValidator(_named(BusyPolicy)),
    PlainSerializer(_name_of),
    _named_schema(BusyPolicy),
    Kind(one_of(names(BusyPolicy))),
]
Sharing = Annotated[
    SharingMode,
    PlainValidator(_named(SharingMode)),
    PlainSerializer(_name_of),
    _named_schema(SharingMode),
    Kind(one_of(names(SharingMode))),
]
Placing = Annotated[
    Placement,
    PlainValidator(_named(Placement)),
    PlainSerializer(_name_of),
    _named_schema(Placement),
    Kind(one_of(names(Placement))),
]
RefuseWhenStale = Annotated[
    bool,
    PlainValidator(_on_stale),
    PlainSerializer(_format_on_stale),
    WithJsonSchema({"enum": ["declarations", "refuse"]}),
    Kind("declarations or refuse"),
]
LogLevel = Annotated[
    str,
    PlainValidator(word(_LOG_LEVELS)),
    WithJsonSchema({"enum": list(_LOG_LEVELS)}),
    Kind(one_of(list(_LOG_LEVELS))),
]
LogLevels = Annotated[
    Mapping[str, str],
    PlainValidator(_levels),
    PlainSerializer(dict),
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": {"enum": list(_LOG_LEVELS)},
            "propertyNames": {"pattern": f"^{_MODULE_PATTERN}$"},
            "maxProperties": MAX_NAMES,
        }
    ),
    Kind("mapping of modules to levels"),
]
LogFormat = Annotated[
    str,
    PlainValidator(word(LOG_FORMATS)),
    WithJsonSchema({"enum": list(LOG_FORMATS)}),
    Kind(one_of(list(LOG_FORMATS))),
]
Node = Annotated[
    str,
    PlainValidator(_node),
    WithJsonSchema({"type": "string", "pattern": f"^{_NODE_PATTERN}$"}),
    Kind("auto or name"),
]
Ratio = Annotated[
    float,
    PlainValidator(number(1.0)),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1}),
    Kind("0 to 1"),
]
File = Annotated[
    str,
    PlainValidator(_file),
    WithJsonSchema({"type": "string", "pattern": "^(|/.*)$"}),
    Kind("absolute path"),
]
Folder = Annotated[
    str,
    PlainValidator(_folder),
    WithJsonSchema({"type": "string", "pattern": r"^(auto|/.*)$"}),
    Kind("auto or absolute path"),
]
SecretFile = Annotated[
    str,
    PlainValidator(_secret_file),
    WithJsonSchema({"type": "string", "pattern": r"^(auto|/.+)$"}),
    Kind("auto or absolute path"),
]
Names = Annotated[
    tuple[str, ...],
    PlainValidator(_names),
    PlainSerializer(list),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"type": "string", "minLength": 1, "maxLength": _NAME_LENGTH},
            "maxItems": MAX_NAMES,
            "uniqueItems": True,
        }
    ),
    Kind("list of texts"),
]
Durability = Annotated[
    str,
    PlainValidator(word(_DURABILITIES)),
    WithJsonSchema({"enum": list(_DURABILITIES)}),
    Kind(one_of(list(_DURABILITIES))),
]
