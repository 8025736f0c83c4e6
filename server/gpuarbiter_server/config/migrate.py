"""The older camelCase JSON -> today's file.

Law: what comes out loads, and nothing is lost in silence: what has no equivalent is named in a note.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from gpuarbiter_server.config import tree
from gpuarbiter_server.config.layers import Layer, Stack
from gpuarbiter_server.config.problems import ConfigError, Path, Problem, dotted
from gpuarbiter_server.config.units import MAX_DURATION, format_duration

_SOURCE = "the older configuration"
_OUTER = "gpuArbiter"
_GPU_KEYS = "gpuKeys"
_POLICIES = "policies"
# Names that end in Ms are milliseconds; what they become carries its unit.
_TOP: Mapping[str, Path] = {
    "enabled": ("enabled",),
    "defaultQueueLimit": ("queue_limit",),
    "defaultHoldMaxMs": ("defaults", "max_hold"),
}
_POLICY: Mapping[str, Path] = {"priority": ("priority",), "maxWaitMs": ("max_wait",), "busyPolicy": ("busy_policy",)}


class Migrated(NamedTuple):
    """Today's file, and what a person should look at; the file has the notes as comments, too."""

    yaml: str
    notes: tuple[str, ...]


def migrate(old_json: str) -> str:
    """Today's file for an older one, with the notes as comments.

    Raises:
        ConfigError: it is no JSON, no older configuration, or has values that are not allowed.
    """
    return migrate_with_notes(old_json).yaml


def migrate_with_notes(old_json: str) -> Migrated:
    """The same, with the notes apart from the file; raises as `migrate` does."""
    read = tree.parse(old_json, _SOURCE)
    if read.problems:
        raise ConfigError(read.problems)
    work = _Work(read.lines)
    work.top(_inner(read.value, work))
    stack = Stack()
    stack.add(Layer(_SOURCE, work.made, work.lines), work.problems)
    stack.config()
    heading = ["Made from the older JSON by gpu-arbiterd config migrate.", *(f"Note: {note}" for note in work.notes)]
    body = yaml.safe_dump(work.made, sort_keys=False, allow_unicode=True)
    return Migrated("".join(f"# {line}\n" for line in heading) + body, tuple(work.notes))


def _inner(value: Any, work: "_Work") -> dict[str, Any]:
    """What stands below gpuArbiter, or the whole where there is no such key."""
    outer: Path = ()
    if isinstance(value, dict) and _OUTER in value:
        outer = (_OUTER,)
        work.leave_out(name for name in value if name != _OUTER)
        value = value[_OUTER]
    known = {*_TOP, _GPU_KEYS, _POLICIES}
    if not isinstance(value, dict) or (value and not known & value.keys()):
        allowed = f"a mapping with {', '.join((*_TOP, _GPU_KEYS, _POLICIES))}"
        raise ConfigError([Problem(dotted(outer), value, _SOURCE, allowed)])
    work.outer = outer
    return value


class _Work:
    """One migration under way."""

    def __init__(self, lines: Mapping[Path, int]) -> None:
        self.made: dict[str, Any] = {}
        self.lines: dict[Path, int] = {}
        self.notes: list[str] = []
        self.problems: list[Problem] = []
        self.outer: Path = ()
        self._old_lines = lines

    def leave_out(self, names: Iterator[str], below: Path = ()) -> None:
        """Notes keys that have no equivalent."""
        self.notes += [f"{dotted((*below, name))} has no equivalent and was left out." for name in names]

    def top(self, old: Mapping[str, Any]) -> None:
        """Takes over everything below gpuArbiter."""
        self._keys(old, _TOP, (), (), also=(_GPU_KEYS, _POLICIES))
        if _GPU_KEYS in old:
            self.made["gpus"] = "auto"
            self.notes.append(
                "gpuKeys named GPUs without their memory. gpus: auto takes those that the driver shows; where there is "
                "no driver, list them: gpus: [{key: gpu:0, memory: 24GiB}]."
            )
        policies = old.get(_POLICIES)
        if not isinstance(policies, dict):
            self._put((_POLICIES,), policies, (_POLICIES,))
            return
        for name, policy in policies.items():
            at = (_POLICIES, name)
            self._put(at, {} if policy is None or isinstance(policy, dict) else policy, at)
            if isinstance(policy, dict):
                self._keys(policy, _POLICY, at, at)

    def _keys(self, old: Mapping[str, Any], known: Mapping[str, Path], at: Path, to: Path, also: Path = ()) -> None:
        for name, value in old.items():
            if name in known:
                self._put((*to, *known[name]), self._today(name, value, at), (*at, name))
        self.leave_out((name for name in old if name not in known and name not in also), at)

    def _today(self, name: str, value: Any, at: Path) -> Any:
        if value is None or not name.endswith("Ms"):
            return value
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value <= MAX_DURATION * 1000:
            path = (*self.outer, *at, name)
            source = Layer(_SOURCE, None, self._old_lines).where(path)
            self.problems.append(
                Problem(dotted(path), value, source, f"a number of milliseconds, at most {MAX_DURATION * 1000:.0f}")
            )
            return None
        return format_duration(value / 1000)

    def _put(self, path: Path, value: Any, old: Path) -> None:
        if value is None:
            return
        place = self.made
        for name in path[:-1]:
            place = place.setdefault(name, {})
        place[path[-1]] = value
        line = self._old_lines.get((*self.outer, *old))
        if line:
            self.lines[path] = line
