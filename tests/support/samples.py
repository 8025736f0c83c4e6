"""Messages made from descriptors and the table of limits: one that is right, and every way to be wrong.

A case changes one thing in a message that is right; `field` is the path that the answer has to name.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from gpuarbiter.v1 import admin_pb2, gpu_arbiter_pb2
from gpuarbiter_server.api.limit_table import LIMITS
from gpuarbiter_server.api.limits import Choice, Flag, Items, Limit, Moment, Number, Part, Span, Table, Text

SERVICES = {
    "GpuArbiter": gpu_arbiter_pb2.DESCRIPTOR.services_by_name["GpuArbiter"],
    "GpuArbiterAdmin": admin_pb2.DESCRIPTOR.services_by_name["GpuArbiterAdmin"],
}
_RANGES = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}
# The patterns of the table allow a different part of these each; every pattern excludes one of them.
_SUSPECTS = ("a\x00b", "a\nb", "\x7f", "\x1b[31m", "a b", "ä", "a/b", "\U0001f4a9", "\x85", "\u2028", "\u202e")
_LARGEST, _SMALLEST = 2**63 - 1, -(2**63)

Spoil = Callable[[Any], None]


@dataclass(frozen=True)
class Case:
    """One thing that is wrong."""

    field: str
    what: str
    message: Message

    def __str__(self) -> str:
        return f"{self.message.DESCRIPTOR.name}.{self.field}: {self.what}"


def is_well_known(descriptor: Descriptor) -> bool:
    """Whether it is a Duration or a Timestamp, which have their limits with the field that they are in."""
    return bool(descriptor.full_name.startswith("google.protobuf."))


def right(descriptor: Descriptor, choice: str = "") -> Any:
    """A message with every field set to something that is allowed; of a oneof, `choice` or else the first."""
    message = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if field.containing_oneof and len(field.containing_oneof.fields) > 1 and field.name != _pick(field, choice):
            continue
        _fill(message, field, LIMITS[descriptor.name].fields[field.name])
    return message


def wrong(descriptor: Descriptor, choice: str = "") -> Iterator[Case]:
    """Every case of a message, its parts included."""
    for path, what, spoil in _spoils(descriptor, choice):
        message = right(descriptor, choice)
        spoil(message)
        yield Case(path, what, message)


def _pick(field: FieldDescriptor, choice: str) -> str:
    names = [member.name for member in field.containing_oneof.fields]
    return choice if choice in names else names[0]


def _fill(message: Any, field: FieldDescriptor, limit: Limit) -> None:
    match limit:
        case Part():
            getattr(message, field.name).CopyFrom(right(field.message_type))
        case Items():
            getattr(message, field.name).append("gpu:0")
        case Table():
            getattr(message, field.name)["key"] = "value"
        case Span(_, least):
            getattr(message, field.name).FromNanoseconds(round((least + 1.0) * 1e9))
        case Moment():
            getattr(message, field.name).FromSeconds(1_700_000_000)
        case Text():
            setattr(message, field.name, "x1")
        case Number():
            setattr(message, field.name, max(1, limit.least))
        case Choice():
            setattr(message, field.name, 1)
        case Flag():
            setattr(message, field.name, False)


def _spoils(descriptor: Descriptor, choice: str) -> Iterator[tuple[str, str, Spoil]]:
    for field in descriptor.fields:
        if field.containing_oneof and len(field.containing_oneof.fields) > 1 and field.name != _pick(field, choice):
            continue
        limit = LIMITS[descriptor.name].fields[field.name]
        if isinstance(limit, Part):
            yield from _part(field, limit)
        else:
            for suffix, what, spoil in _leaf(field, limit):
                yield field.name + suffix, what, spoil


def _part(field: FieldDescriptor, limit: Part) -> Iterator[tuple[str, str, Spoil]]:
    name = field.name
    if limit.required:
        yield name, "absent", lambda m: m.ClearField(name)
    for path, what, spoil in _spoils(field.message_type, ""):
        yield f"{name}.{path}", what, lambda m, spoil=spoil: spoil(getattr(m, name))


def _leaf(field: FieldDescriptor, limit: Limit) -> Iterator[tuple[str, str, Spoil]]:
    name = field.name
    match limit:
        case Items() | Table():
            yield from _many(name, limit)
        case Span() | Moment():
            for value in _bad_times(limit):
                yield "", f"{value}", lambda m, value=value: _set_time(getattr(m, name), *value)
        case Text() | Number() | Choice():
            for what, bad in _bad_values(field, limit):
                yield "", what, lambda m, bad=bad: setattr(m, name, bad)


def _many(name: str, limit: Items | Table) -> Iterator[tuple[str, str, Spoil]]:
    if isinstance(limit, Items):
        yield "", "too many", lambda m: getattr(m, name).extend(["gpu:0"] * limit.most)
        for what, bad in _bad_texts(limit.each):
            yield "[1]", what, lambda m, bad=bad: getattr(m, name).append(bad)
        return
    yield "", "too many", lambda m: getattr(m, name).update({f"k{i}": "" for i in range(limit.most)})
    for what, bad in _bad_texts(limit.key):
        yield "[0]", f"key {what}", lambda m, bad=bad: _only(getattr(m, name), bad, "v")
    for what, bad in _bad_texts(limit.value):
        yield "[0]", f"value {what}", lambda m, bad=bad: _only(getattr(m, name), "k", bad)


def _bad_values(field: FieldDescriptor, limit: Text | Number | Choice) -> Iterator[tuple[str, Any]]:
    match limit:
        case Text():
            yield from _bad_texts(limit)
        case Number():
            low, high = _RANGES[field.type]
            for value in sorted({limit.least - 1, limit.most + 1, low, high, 0}):
                if low <= value <= high and not limit.least + limit.required <= value <= limit.most:
                    yield f"{value}", value
        case Choice():
            for value in (-1, max(limit.enum.values_by_number) + 1, 2**31 - 1, *([0] if limit.required else [])):
                yield f"enum {value}", value


def _bad_texts(limit: Text) -> Iterator[tuple[str, str]]:
    yield f"{limit.longest + 1} characters", "x" * (limit.longest + 1)
    yield "60000 characters", "x" * max(60_000, limit.longest + 1)
    for value in _SUSPECTS:
        if limit.check(value):
            yield repr(value), value
    if limit.required:
        yield "empty", ""


def _bad_times(limit: Span | Moment) -> Iterator[tuple[int, int]]:
    yield from ((-1, 0), (_LARGEST, 0), (_SMALLEST, 0), (0, -1), (1, 2**31 - 1), (1, 10**9), (1, -1), (-1, 1))
    if isinstance(limit, Span):
        yield from ((int(limit.most), 1), (int(limit.most) + 1, 0), (0, -(2**31)))
        if limit.least:
            yield from ((0, 0), (0, round(limit.least * 1e9) - 1))


def _set_time(message: Any, seconds: int, nanos: int) -> None:
    message.seconds, message.nanos = seconds, nanos


def _only(table: Any, key: str, value: str) -> None:
    table.clear()
    table[key] = value
