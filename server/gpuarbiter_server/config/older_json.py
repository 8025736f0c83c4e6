"""The older camelCase JSON of the arbiter: `gpuArbiter: {enabled, gpuKeys, …}`."""

from collections.abc import Mapping
from typing import Any

from gpuarbiter_server.config.making import SOURCE, Making
from gpuarbiter_server.config.older_yaml import SECTIONS
from gpuarbiter_server.config.problems import ConfigError, Path, Problem, dotted
from gpuarbiter_server.config.units import MAX_DURATION, format_duration

NAME = "the older JSON"
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
_KEYS = (*_TOP, _GPU_KEYS, _POLICIES)


def take_over(value: Any, making: Making) -> None:
    """Takes everything over, below gpuArbiter or, where there is no such key, at the top.

    Raises:
        ConfigError: it is no such configuration.
    """
    outer: Path = ()
    if isinstance(value, dict) and _OUTER in value:
        outer = (_OUTER,)
        making.leave_out((name,) for name in value if name != _OUTER)
        value = value[_OUTER]
    if not isinstance(value, dict) or (value and not set(_KEYS) & value.keys()):
        allowed = f"a mapping with {', '.join(_KEYS)}; or that of an earlier analyzer, with {', '.join(SECTIONS)}"
        if isinstance(value, dict):
            # Whatever it is, there may be secrets in it.
            raise ConfigError([Problem(dotted(outer), None, SOURCE, f"expected {allowed}", wrong="no key is known")])
        raise ConfigError([Problem(dotted(outer), value, SOURCE, allowed)])
    _Work(making, outer).top(value)


class _Work:
    """One migration under way."""

    def __init__(self, making: Making, outer: Path) -> None:
        self._making = making
        self._outer = outer

    def top(self, old: Mapping[str, Any]) -> None:
        """Takes over everything below gpuArbiter."""
        self._keys(old, _TOP, (), (), also=(_GPU_KEYS, _POLICIES))
        if _GPU_KEYS in old:
            self._making.put(("gpus",), "auto", ())
            self._making.notes.append(
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
        self._making.leave_out((*at, name) for name in old if name not in known and name not in also)

    def _today(self, name: str, value: Any, at: Path) -> Any:
        if value is None or not name.endswith("Ms"):
            return value
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value <= MAX_DURATION * 1000:
            allowed = f"a number of milliseconds, at most {MAX_DURATION * 1000:.0f}"
            self._making.refuse((*self._outer, *at, name), value, allowed)
            return None
        return format_duration(value / 1000)

    def _put(self, path: Path, value: Any, old: Path) -> None:
        self._making.put(path, value, (*self._outer, *old))
