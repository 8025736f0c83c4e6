"""Holds a request against the table of limits.

Law: a request that is as it must be, which nearly all are, costs a look at the fields that it has; only of one that is
not is every violation found and described. Paths in violations are dotted, relative to the request.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from gpuarbiter_server.api.limit_table import LIMITS
from gpuarbiter_server.api.limits import Items, Limit, Part, Rule, Table
from gpuarbiter_server.core.errors import Violation, invalid

_MOST_VIOLATIONS = 32
# In a session the holder of the session stands in.
_SPARED = {"acquire": "holder"}


def check(request: Message) -> None:
    """Raises ArbiterError INVALID_REQUEST that names every field which is not as it must be."""
    if not _form(request.DESCRIPTOR, "").fits(request):
        raise invalid(*tuple(_violations(request, ""))[:_MOST_VIOLATIONS])


@dataclass(frozen=True, slots=True)
class _Form:
    """What a message has to be, for a quick look."""

    # The numbers of the fields that must be there, as bits.
    needed: int
    # By the number of the field: whether its value is as it must be.
    values: dict[int, Callable[[Any], bool]]
    rules: tuple[Rule, ...]

    def fits(self, message: Message) -> bool:
        """Whether nothing is wrong with a message and its parts."""
        missing = self.needed
        for field, value in message.ListFields():
            if not self.values[field.number](value):
                return False
            missing &= ~(1 << field.number)
        return not missing and all(rule.holds(message) for rule in self.rules)


@cache
def _form(descriptor: Descriptor, optional: str) -> _Form:
    rows = LIMITS[descriptor.name]
    needed = 0
    for field in descriptor.fields:
        if field.name != optional and not _may_be_absent(field, rows.fields[field.name]):
            needed |= 1 << field.number
    values = {field.number: _fits(field, rows.fields[field.name]) for field in descriptor.fields}
    return _Form(needed, values, rows.rules)


def _may_be_absent(field: FieldDescriptor, limit: Limit) -> bool:
    if isinstance(limit, Part):
        return not limit.required
    # What has no presence is seen as its default.
    return field.has_presence or isinstance(limit, Items | Table) or not limit.check(field.default_value)


def _fits(field: FieldDescriptor, limit: Limit) -> Callable[[Any], bool]:
    if isinstance(limit, Part):
        form = _form(field.message_type, _SPARED.get(field.name, ""))
        return form.fits
    if isinstance(limit, Items | Table):
        return lambda values: next(limit.check(values), None) is None
    return lambda value: limit.check(value) is None


def _violations(message: Message, path: str, optional: str = "") -> Iterator[Violation]:
    """What is wrong with a message and its parts; optional: a part that need not be there this time."""
    rows = LIMITS[message.DESCRIPTOR.name]
    for field in message.DESCRIPTOR.fields:
        name, limit = field.name, rows.fields[field.name]
        if field.has_presence and not message.HasField(name):
            if isinstance(limit, Part) and limit.required and name != optional:
                yield Violation(path + name, "must be given")
            continue
        value = getattr(message, name)
        if isinstance(limit, Part):
            yield from _violations(value, f"{path}{name}.", _SPARED.get(name, ""))
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
