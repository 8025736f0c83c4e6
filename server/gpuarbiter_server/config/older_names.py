"""Names in the environment that an earlier analyzer of GPUs had, and what they say today.

Law: a name of today that says the same wins. A bare number has the unit that it had there.
"""

from collections.abc import Mapping
from typing import NamedTuple

from gpuarbiter_server.config.problems import Path


class OlderName(NamedTuple):
    """The key of today, and the unit of a bare number."""

    path: Path
    unit: str = ""


OLDER_NAMES: Mapping[str, OlderName] = {
    "PROM_URL": OlderName(("analysis", "prometheus", "url")),
    "THRESHOLD": OlderName(("analysis", "thresholds", "low")),
    "INTERVAL": OlderName(("analysis", "interval"), "s"),
    "MAX_WORKERS": OlderName(("analysis", "max_workers")),
    "TIME_WINDOW_MIN": OlderName(("analysis", "time_window"), "m"),
    "LOG_LEVEL": OlderName(("log_level",)),
}


def as_today(name: str, text: str) -> str:
    """The value as today's variable would have it."""
    unit = OLDER_NAMES[name].unit
    try:
        float(text)
    except ValueError:
        return text.strip()
    return text.strip() + unit
