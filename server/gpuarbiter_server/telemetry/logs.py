"""What is logged, and from which level on: one line for each thing that happened to a lease.

Levels are those of Python's logging. A name without a dot is one of our rooms ("store", "api"), or "events" for what
happened to leases; any other is a logger's full name ("opentelemetry.sdk").
"""

import logging
from collections.abc import Callable, Mapping
from time import time

from gpuarbiter_server.core.effects import Recorded
from gpuarbiter_server.core.model import EventType
from gpuarbiter_server.telemetry.log_lines import happened, lines
from gpuarbiter_server.telemetry.log_writer import LogWriter
from gpuarbiter_server.telemetry.series import Exemplar

_OURS = "gpuarbiter_server"
log = logging.getLogger(f"{_OURS}.events")

# Of what happens to leases; info for all the rest.
_LEVELS = {
    EventType.HOLD_EXCEEDED: logging.WARNING,
    EventType.MEMORY_OVERUSE: logging.WARNING,
    EventType.GPU_LOST: logging.WARNING,
    EventType.COOLDOWN_STARTED: logging.WARNING,
    EventType.QUEUED: logging.DEBUG,
    EventType.RENEWED: logging.DEBUG,
}
_NAMES = {level: logging.getLevelName(level) for level in (logging.DEBUG, logging.INFO, logging.WARNING)}

# Libraries that log at info what is a detail to us, such as each request that they make.
_TALKATIVE = ("httpx",)
# Loggers that have a level of their own now.
_told_apart: set[str] = set()


def start() -> LogWriter:
    """Has everything that is logged written to stderr, by the writer that is returned; to be closed at the end."""
    writer = LogWriter()
    logging.basicConfig(handlers=[writer], force=True)
    configure("info")
    return writer


def configure(level: str, levels: Mapping[str, str] | None = None, form: str = "console") -> None:
    """What is written from now on.

    level: debug, info, warning or error. levels: other levels, by module. form: console or json.
    """
    root = logging.getLogger()
    root.setLevel(level.upper())
    quieter = dict.fromkeys(_TALKATIVE, "warning") if level == "info" else {}
    wanted = quieter | {_logger_name(module): name for module, name in (levels or {}).items()}
    for name in _told_apart - wanted.keys():
        logging.getLogger(name).setLevel(logging.NOTSET)
    for name, own in wanted.items():
        logging.getLogger(name).setLevel(own.upper())
    _told_apart.clear()
    _told_apart.update(wanted)
    for handler in root.handlers:
        if isinstance(handler, LogWriter):
            handler.set_lines(lines(form))


def _logger_name(module: str) -> str:
    return module if "." in module else f"{_OURS}.{module}"


class EventLog:
    """An observer that logs. trace: the ids of the trace and span of what was observed last, where it is sampled."""

    def __init__(self, writer: LogWriter, trace: Callable[[], Exemplar | None] = lambda: None) -> None:
        self._writer = writer
        self._trace = trace

    def observe(self, recorded: Recorded) -> None:
        """Logs an event."""
        level = _LEVELS.get(recorded.type, logging.INFO)
        if log.isEnabledFor(level):
            name = _NAMES[level]
            self._writer.take(happened(time(), name, recorded, self._trace_id(recorded)))

    def _trace_id(self, recorded: Recorded) -> str:
        """Of our spans where there are some, otherwise the caller's."""
        current = self._trace()
        if current is not None:
            return current[0]
        _, _, rest = recorded.traceparent.partition("-")
        return rest.partition("-")[0]
