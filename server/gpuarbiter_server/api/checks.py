"""Holds a request against the table of limits.

Paths in violations are dotted, relative to the request.
"""

from collections.abc import Iterator

from google.protobuf.message import Message

from gpuarbiter_server.api.limit_table import LIMITS
from gpuarbiter_server.api.limits import Items, Part, Table
from gpuarbiter_server.core.errors import Violation, invalid

_MOST_VIOLATIONS = 32


def check(request: Message) -> None:
    """Raises ArbiterError INVALID_REQUEST that names every field which is not as it must be."""
    found = tuple(_violations(request, ""))
    if found:
        raise invalid(*found[:_MOST_VIOLATIONS])


def _violations(message: Message, path: str, optional: str = "") -> Iterator[Violation]:
    """What is wrong with a message and its parts; optional: a part that need not be there this time."""
    rows = LIMITS[message.DESCRIPTOR.name]
    for name, presence in _fields_of(message):
        limit = rows.fields[name]
        if presence and not message.HasField(name):
            if isinstance(limit, Part) and limit.required and name != optional:
                yield Violation(path + name, "must be given")
            continue
        value = getattr(message, name)
        if isinstance(limit, Part):
            # In a session the holder of the session stands in.
            spared = "holder" if name == "acquire" else ""
            yield from _violations(value, f"{path}{name}.", spared)
        elif isinstance(limit, Items | Table):
            for suffix, problem in limit.check(value):
                yield Violation(path + name + suffix, problem)
        else:
            wrong = limit.check(value)
            if wrong:
                yield Violation(path + name, wrong)
    for rule in rows.rules:
        if not rule.holds(message):
            yield Violation(path + rule.field, rule.description)


_FIELDS: dict[str, tuple[tuple[str, bool], ...]] = {}


def _fields_of(message: Message) -> tuple[tuple[str, bool], ...]:
    """The fields of a message, and for each whether its absence can be told; looked up once."""
    descriptor = message.DESCRIPTOR
    fields = _FIELDS.get(descriptor.name)
    if fields is None:
        fields = _FIELDS[descriptor.name] = tuple((f.name, f.has_presence) for f in descriptor.fields)
    return fields
