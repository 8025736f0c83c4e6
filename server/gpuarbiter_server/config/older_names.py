"""Names that an earlier analyzer of GPUs had, in the environment at first, and what they say today.

Law: a name of today that says the same wins. A bare number has the unit that it had there.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from gpuarbiter_server.config.problems import Path


class OlderName(NamedTuple):
    """The key of today, the unit of a bare number, and whether it is yes or no, in any of the usual words."""

    path: Path
    unit: str = ""
    is_flag: bool = False

    def today(self, said: Any) -> Any:
        """What was said there, a text or a number, as it would be said today."""
        if self.is_flag:
            return _FLAGS.get(str(said).lower(), said)
        if not self.unit or isinstance(said, bool):
            return said
        try:
            float(said)
        except (TypeError, ValueError):
            return said
        return f"{said}{self.unit}"


# YAML had more words for it then.
_FLAGS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}

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


def as_today(name: str, text: str) -> str:
    """The value as today's variable would have it."""
    value = OLDER_NAMES[name].today(text.strip())
    return str(value).lower() if isinstance(value, bool) else str(value)
