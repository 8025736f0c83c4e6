"""The keys as data, read off the model: for checks of shape, for what needs a restart, for the reference.

Law: a key that the model does not have is reported wherever it is said, even if what is said is null.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

from pydantic.fields import FieldInfo

from gpuarbiter_server.config import kinds
from gpuarbiter_server.config.model import Config
from gpuarbiter_server.config.problems import UNKNOWN_KEY, Fault, Path, dotted, unknown_key
from gpuarbiter_server.config.sections import EFFECT, RESTART, Section

MAX_POLICIES = 256
_OLD_FORM = "gpuArbiter"


@dataclass(frozen=True, slots=True)
class Key:
    """One key that has a value of its own."""

    path: Path
    kind: str
    what: str
    needs_restart: bool


def _name(name: str, field: FieldInfo) -> str:
    return field.alias or name


def _fields(section: type[Section]) -> dict[str, FieldInfo]:
    return {_name(name, field): field for name, field in section.model_fields.items()}


def _below(field: FieldInfo) -> type[Section] | None:
    return field.annotation if isinstance(field.annotation, type) and issubclass(field.annotation, Section) else None


def _each(field: FieldInfo) -> type[Section] | None:
    """The section of each entry, for a mapping by task type."""
    found = [kind for kind in get_args(field.annotation) if isinstance(kind, type) and issubclass(kind, Section)]
    return found[0] if found and not _below(field) else None


@cache
def all_keys() -> tuple[Key, ...]:
    """Every key with a value of its own, in the order of the model; a policy's once, under `defaults`."""
    return tuple(_keys(Config, ()))


def _keys(section: type[Section], path: Path) -> Iterator[Key]:
    for name, field in _fields(section).items():
        below = _below(field)
        if below:
            yield from _keys(below, (*path, name))
        elif not _each(field):
            kind = next(data.label for data in field.metadata if isinstance(data, kinds.Kind))
            extra = field.json_schema_extra
            needs_restart = isinstance(extra, dict) and extra[EFFECT] == RESTART
            yield Key((*path, name), kind, field.description or "", needs_restart)


def value_at(tree: Mapping[str, Any], path: Path) -> Any:
    """The value of a key that is there."""
    value: Any = tree
    for name in path:
        value = value[name]
    return value


def shape_faults(tree: dict[str, Any], section: type[Section] = Config, path: Path = ()) -> Iterator[Fault]:
    """Unknown keys, and values where mappings belong; each is taken out of the tree.

    What is left has the model's shape, whatever the values of the keys are.
    """
    known = _fields(section)
    for name in list(tree):
        here = (*path, name)
        if name not in known:
            del tree[name]
            yield Fault(here, None, _unknown(name, known, path), wrong=UNKNOWN_KEY)
            continue
        below, each = _below(known[name]), _each(known[name])
        inner, value = below or each, tree[name]
        if value is None or not inner:
            continue
        if not isinstance(value, dict):
            del tree[name]
            allowed = f"a mapping with {', '.join(_fields(below)) if below else 'task types'}"
            # What is no number may be a secret that belongs to one of its keys.
            secret = below is not None and not isinstance(value, int | float)
            yield Fault(here, None, allowed, wrong="not allowed") if secret else Fault(here, value, allowed)
        else:
            yield from (shape_faults if below else _entry_faults)(value, inner, here)


def _entry_faults(tree: dict[str, Any], each: type[Section], path: Path) -> Iterator[Fault]:
    if len(tree) > MAX_POLICIES:
        yield Fault(path, None, f"at most {MAX_POLICIES} are kept", wrong=f"{len(tree)} task types")
        tree.clear()
    for name in list(tree):
        value, here = tree[name], (*path, name)
        if not kinds.is_task_type(name):
            del tree[name]
            yield Fault(here, name, "a task type: 1 to 64 letters, digits and _.-")
        elif isinstance(value, dict):
            yield from shape_faults(value, each, here)
        elif value is not None:
            del tree[name]
            yield Fault(here, value, f"a mapping with {', '.join(_fields(each))}")


def _unknown(name: str, known: Mapping[str, FieldInfo], path: Path) -> str:
    if name == _OLD_FORM and not path:
        return "this is the older JSON: gpu-arbiterd config migrate FILE turns it into today's form"
    return unknown_key(name, known, (dotted(key.path) for key in all_keys()))
