"""One log line for each thing that happened to a lease, for people with a terminal."""

import logging

from gpuarbiter_server.core.effects import Recorded
from gpuarbiter_server.core.model import EventType

log = logging.getLogger("gpuarbiter.events")

_WARNINGS = frozenset(
    {EventType.HOLD_EXCEEDED, EventType.MEMORY_OVERUSE, EventType.GPU_LOST, EventType.COOLDOWN_STARTED}
)
_DETAILS = frozenset({EventType.QUEUED, EventType.RENEWED})


def configure(level: str) -> None:
    """Logs to stderr from this level on (debug, info, warning, error)."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S", force=True
    )


class EventLog:
    """An observer that logs."""

    def observe(self, recorded: Recorded) -> None:
        """Logs an event."""
        level = logging.WARNING if recorded.type in _WARNINGS else logging.INFO
        if recorded.type in _DETAILS:
            level = logging.DEBUG
        if log.isEnabledFor(level):
            log.log(level, "%s", _line(recorded))


def _line(recorded: Recorded) -> str:
    facts = {
        "task": recorded.task_type,
        "client": recorded.holder.client_id if recorded.holder else "",
        "gpu": ",".join(recorded.gpus),
        "lease": recorded.lease_id,
        "request": recorded.request_id,
        "wait": "" if recorded.waited is None else f"{recorded.waited:.3f}s",
        "hold": "" if recorded.held is None else f"{recorded.held:.3f}s",
        "end": recorded.end_reason.name if recorded.end_reason else "",
        "yield": recorded.yield_reason.name if recorded.yield_reason else "",
        "detail": recorded.detail,
    }
    return " ".join((recorded.type.name, *(f"{key}={_quoted(value)}" for key, value in facts.items() if value)))


def _quoted(value: str) -> str:
    """A value that is more than a word in quotes; what would break the line, escaped."""
    return repr(value) if " " in value or not value.isprintable() else value
