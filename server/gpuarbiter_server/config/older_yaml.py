"""The YAML of an earlier analyzer of GPUs: sections prometheus, thresholds, scheduler, scoring, ai and control.

Law: a bare number has the unit that it had there. A secret is never copied; a note says where it belongs.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from gpuarbiter_server.config.making import Making
from gpuarbiter_server.config.older_names import OlderName
from gpuarbiter_server.config.problems import Path, dotted

NAME = "the YAML of an earlier analyzer"
SECTIONS = ("prometheus", "thresholds", "scheduler", "scoring", "ai", "control")
_SECONDS, _MINUTES = "s", "m"


def _key(*path: str, unit: str = "", is_flag: bool = False) -> OlderName:
    return OlderName(("analysis", *path), unit, is_flag)


_WEIGHTS = {
    "gpu_util": "utilization",
    "mem_copy": "memory_bandwidth",
    "mem_used": "memory",
    "power": "power",
    "power_usage": "power",
}
# Where people have had several names for one thing, each is known.
_KEYS: Mapping[Path, OlderName] = {
    ("prometheus", "url"): _key("prometheus", "url"),
    ("prometheus", "selector"): _key("prometheus", "selector"),
    ("prometheus", "timeout"): _key("prometheus", "timeout", unit=_SECONDS),
    ("prometheus", "time_window"): _key("time_window", unit=_MINUTES),
    ("prometheus", "time_window_min"): _key("time_window", unit=_MINUTES),
    ("prometheus", "time_window_minutes"): _key("time_window", unit=_MINUTES),
    ("prometheus", "query_window_minutes"): _key("time_window", unit=_MINUTES),
    ("prometheus", "step"): _key("step", unit=_SECONDS),
    ("prometheus", "step_seconds"): _key("step", unit=_SECONDS),
    ("thresholds", "idle"): _key("thresholds", "idle"),
    ("thresholds", "low"): _key("thresholds", "low"),
    ("thresholds", "low_utilization"): _key("thresholds", "low"),
    ("thresholds", "high"): _key("thresholds", "high"),
    ("scheduler", "interval"): _key("interval", unit=_SECONDS),
    ("scheduler", "interval_seconds"): _key("interval", unit=_SECONDS),
    ("scheduler", "timeout"): _key("timeout", unit=_SECONDS),
    ("scheduler", "max_workers"): _key("max_workers"),
    ("scheduler", "time_window"): _key("time_window", unit=_MINUTES),
    ("scheduler", "time_window_minutes"): _key("time_window", unit=_MINUTES),
    **{("scoring", "weights", old): _key("weights", new) for old, new in _WEIGHTS.items()},
    ("ai", "enabled"): _key("ai", "enabled", is_flag=True),
    ("ai", "api_url"): _key("ai", "url"),
    ("ai", "model"): _key("ai", "model"),
    ("ai", "threshold"): _key("ai", "threshold"),
    ("ai", "timeout"): _key("ai", "timeout", unit=_SECONDS),
    ("control", "enabled"): _key("control", "enabled", is_flag=True),
    ("control", "api_url"): _key("control", "url"),
    ("control", "url"): _key("control", "url"),
    ("control", "timeout"): _key("control", "timeout", unit=_SECONDS),
    ("log_level",): OlderName(("log_level",)),
}
_SECRETS: Mapping[Path, str] = {
    ("ai", "api_key"): "a file that analysis.ai.key_file names, or AI_API_KEY in the environment",
}


def is_one(value: Any) -> bool:
    """Whether this is such a configuration."""
    return isinstance(value, dict) and not value.keys().isdisjoint(SECTIONS)


def take_over(value: Mapping[str, Any], making: Making) -> None:
    """Takes everything over that has an equivalent."""
    sections = {path[:end] for path in _KEYS for end in range(1, len(path))}
    taken: dict[Path, Path] = {}
    for old, said in _leaves(value, sections):
        if old in _KEYS:
            key = _KEYS[old]
            first = taken.setdefault(key.path, old)
            if first is old:
                making.put(key.path, key.today(said), old)
            else:
                making.notes.append(f"{dotted(old)} is another name of {dotted(first)} and was left out.")
        elif old in sections:
            below = sorted({path[len(old)] for path in _KEYS if path[: len(old)] == old})
            making.refuse(old, said, f"a mapping with {', '.join(below)}")
        elif old in _SECRETS:
            making.notes.append(f"{dotted(old)} is a secret and was not copied: it belongs into {_SECRETS[old]}.")
        else:
            making.leave_out([old])


def _leaves(tree: Mapping[str, Any], sections: set[Path], at: Path = ()) -> Iterator[tuple[Path, Any]]:
    """What is said, but for what is null."""
    for name, value in tree.items():
        path = (*at, name)
        if path in sections and isinstance(value, dict):
            yield from _leaves(value, sections, path)
        elif value is not None:
            yield path, value
