"""Names in the environment that an earlier analyzer of GPUs had, and what they say today.

Law: a name of today that says the same wins. A bare number has the unit that it had there.
"""

from collections.abc import Mapping
from typing import NamedTuple

from gpuarbiter_server.config.problems import Path


class OlderName(NamedTuple):
    """The key of today, the unit of a bare number, and whether it is yes or no, in any of the usual words."""

    path: Path
    unit: str = ""
    is_flag: bool = False


OLDER_NAMES: Mapping[str, OlderName] = {
    "PROM_URL": OlderName(("analysis", "prometheus", "url")),
    "THRESHOLD": OlderName(("analysis", "thresholds", "low")),
    "INTERVAL": OlderName(("analysis", "interval"), "s"),
    "MAX_WORKERS": OlderName(("analysis", "max_workers")),
    "TIME_WINDOW_MIN": OlderName(("analysis", "time_window"), "m"),
    "AI_ENABLED": OlderName(("analysis", "ai", "enabled"), is_flag=True),
    "AI_API_URL": OlderName(("analysis", "ai", "url")),
    "AI_MODEL": OlderName(("analysis", "ai", "model")),
    "CONTROL_API_ENABLED": OlderName(("analysis", "control", "enabled"), is_flag=True),
    "CONTROL_API": OlderName(("analysis", "control", "url")),
    "LOG_LEVEL": OlderName(("log_level",)),
}


_WORDS = {"1": "true", "yes": "true", "on": "true", "0": "false", "no": "false", "off": "false"}


def as_today(name: str, text: str) -> str:
    """The value as today's variable would have it."""
    meant, text = OLDER_NAMES[name], text.strip()
    if meant.is_flag:
        return _WORDS.get(text.lower(), text)
    try:
        float(text)
    except ValueError:
        return text
    return text + meant.unit
