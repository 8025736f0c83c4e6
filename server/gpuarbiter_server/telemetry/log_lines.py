"""What a log line looks like: for people with a terminal, or one JSON object for programs.

Law: a record is one line, whatever is in it. What happens to leases comes often, and is put into words here; all
other records go the way of structlog.
"""

import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, WrappedLogger

from gpuarbiter_server.core.effects import Recorded

FORMATS = ("console", "json")
_EVENTS = "events"


class Happened(NamedTuple):
    """Something that happened to a lease, to be logged; at: seconds since 1970.

    Only what the line says: what is recorded can be a hundred times as long, and many lines may wait.
    """

    at: float
    level: str
    kind: str
    # What is known of it, and empty values for what is not.
    fields: tuple[tuple[str, Any], ...]


class Lines(NamedTuple):
    """How lines are made."""

    of_event: Callable[[Happened], str]
    of_record: logging.Formatter


def lines(form: str) -> Lines:
    """Those of one of the FORMATS."""
    last = _json if form == "json" else _console
    formatter = ProcessorFormatter(
        processors=[_facts, structlog.processors.format_exc_info, ProcessorFormatter.remove_processors_meta, last]
    )
    return Lines(_event_as_json if form == "json" else _event_for_people, formatter)


# -- what happens to leases --


def happened(at: float, level: str, recorded: Recorded, trace_id: str) -> Happened:
    """What there is to say of what was recorded."""
    holder = recorded.holder
    fields = (
        ("task", recorded.task_type),
        ("client", holder.client_id if holder else ""),
        ("namespace", holder.namespace if holder else ""),
        ("pod", holder.pod if holder else ""),
        ("gpu", recorded.gpus),
        ("lease", recorded.lease_id),
        ("request", recorded.request_id),
        ("wait_seconds", recorded.waited),
        ("hold_seconds", recorded.held),
        ("outcome", recorded.outcome),
        ("end", recorded.end_reason.name if recorded.end_reason else ""),
        ("yield", recorded.yield_reason.name if recorded.yield_reason else ""),
        ("detail", recorded.detail),
        ("trace_id", trace_id),
    )
    return Happened(at, level, recorded.type.name, fields)


def _event_as_json(event: Happened) -> str:
    said = {
        "timestamp": _iso(event.at),
        "level": event.level.lower(),
        "logger": _EVENTS,
        "event": event.kind,
    }
    said.update((name, value) for name, value in event.fields if value not in ("", None, ()))
    return json.dumps(said)


def _event_for_people(event: Happened) -> str:
    parts = [f"{_time_of_day(event.at)} {event.level} {_EVENTS}: {event.kind}"]
    for name, value in event.fields:
        if isinstance(value, float):
            parts.append(f"{name.removesuffix('_seconds')}={value:.3f}s")
        elif value:
            parts.append(f"{name}={_word(','.join(value) if isinstance(value, tuple) else value)}")
    return " ".join(parts)


# -- everything else --


def _facts(_logger: WrappedLogger, _name: str, said: EventDict) -> EventDict:
    """What every line begins with, and what else is known of the record."""
    record: logging.LogRecord = said["_record"]
    begin = {
        "timestamp": _iso(record.created),
        "level": record.levelname.lower(),
        "logger": record.name.removeprefix("gpuarbiter_server."),
        "event": said["event"],
    }
    return {**begin, **{key: value for key, value in said.items() if key not in begin}}


def _json(_logger: WrappedLogger, _name: str, said: EventDict) -> str:
    return json.dumps(said, default=str)


def _console(_logger: WrappedLogger, _name: str, said: EventDict) -> str:
    at = datetime.fromisoformat(said["timestamp"]).timestamp()
    event = said["event"] if said["event"].isprintable() else said["event"].encode("unicode_escape").decode()
    exception = said.get("exception")
    begin = f"{_time_of_day(at)} {said['level'].upper()} {said['logger']}: {event}"
    return f"{begin}\n{exception}" if exception else begin


# -- times and words --


class _Second:
    """The text of the second that was asked for last: lines come many a second."""

    def __init__(self, text: Callable[[int], str]) -> None:
        self._make = text
        self._at = -1
        self._text = ""

    def text(self, at: float) -> str:
        """Of the second that this moment lies in, with its milliseconds."""
        second, milliseconds = divmod(int(at * 1000), 1000)
        if second != self._at:
            self._at, self._text = second, self._make(second)
        return f"{self._text}.{milliseconds:03d}"


# Lines are made by one thread.
_day = _Second(lambda second: time.strftime("%H:%M:%S", time.localtime(second)))
_utc = _Second(lambda second: datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S"))


def _time_of_day(at: float) -> str:
    return _day.text(at)


def _iso(at: float) -> str:
    return f"{_utc.text(at)}+00:00"


def _word(text: str) -> str:
    """A value that is more than a word in quotes; what would break the line, escaped."""
    return text if text.isprintable() and " " not in text else repr(text)
