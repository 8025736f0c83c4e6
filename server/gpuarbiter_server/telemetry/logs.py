"""What is logged, and from which level on: one line for each thing that happened to a lease.

Levels are those of Python's logging. A name without a dot is one of our rooms ("store", "api"), or "events" for what
happened to leases; any other is a logger's full name ("opentelemetry.sdk").
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from gpuarbiter_server.core.effects import Recorded
from gpuarbiter_server.core.model import EventType
from gpuarbiter_server.telemetry import log_lines
from gpuarbiter_server.telemetry.log_writer import LogWriter
from gpuarbiter_server.telemetry.series import Exemplar

_OURS = "gpuarbiter_server"
log = logging.getLogger(f"{_OURS}.events")

_WARNINGS = frozenset(
    {EventType.HOLD_EXCEEDED, EventType.MEMORY_OVERUSE, EventType.GPU_LOST, EventType.COOLDOWN_STARTED}
)
_DETAILS = frozenset({EventType.QUEUED, EventType.RENEWED})

# Loggers that have a level of their own now.
_told_apart: set[str] = set()


def start() -> LogWriter:
    """Has everything that is logged written to stderr; to be closed at the end."""
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
    wanted = {_logger_name(module): name for module, name in (levels or {}).items()}
    for name in _told_apart - wanted.keys():
        logging.getLogger(name).setLevel(logging.NOTSET)
    for name, own in wanted.items():
        logging.getLogger(name).setLevel(own.upper())
    _told_apart.clear()
    _told_apart.update(wanted)
    for handler in root.handlers:
        if isinstance(handler, LogWriter):
            handler.setFormatter(log_lines.formatter(form))


def _logger_name(module: str) -> str:
    return module if "." in module else f"{_OURS}.{module}"


class EventLog:
    """An observer that logs. trace: the ids of the trace and span of what was observed last, where it is sampled."""

    def __init__(self, trace: Callable[[], Exemplar | None] = lambda: None) -> None:
        self._trace = trace

    def observe(self, recorded: Recorded) -> None:
        """Logs an event."""
        level = logging.WARNING if recorded.type in _WARNINGS else logging.INFO
        if recorded.type in _DETAILS:
            level = logging.DEBUG
        if log.isEnabledFor(level):
            log.log(level, recorded.type.name, extra={log_lines.FIELDS: self._fields(recorded)})

    def _fields(self, recorded: Recorded) -> dict[str, Any]:
        holder = recorded.holder
        facts = {
            "task": recorded.task_type,
            "client": holder.client_id if holder else "",
            "namespace": holder.namespace if holder else "",
            "pod": holder.pod if holder else "",
            "gpu": recorded.gpus,
            "lease": recorded.lease_id,
            "request": recorded.request_id,
            "wait_seconds": recorded.waited,
            "hold_seconds": recorded.held,
            "outcome": recorded.outcome,
            "end": recorded.end_reason.name if recorded.end_reason else "",
            "yield": recorded.yield_reason.name if recorded.yield_reason else "",
            "detail": recorded.detail,
            "trace_id": self._trace_id(recorded),
        }
        return {key: value for key, value in facts.items() if value not in ("", None, ())}

    def _trace_id(self, recorded: Recorded) -> str:
        """Of our spans where there are some, otherwise the caller's."""
        current = self._trace()
        if current is not None:
            return current[0]
        _, _, rest = recorded.traceparent.partition("-")
        return rest.partition("-")[0]
