"""What a log line looks like: for people with a terminal, or one JSON object for programs.

Law: a record is one line, whatever is in it.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Any

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, WrappedLogger

FORMATS = ("console", "json")
# Where a record keeps its fields, by logging's `extra`.
FIELDS = "fields"

# How people read a number of seconds.
_SECONDS = "_seconds"


def formatter(form: str) -> logging.Formatter:
    """The formatter of one of the FORMATS."""
    last = _json if form == "json" else _console
    return ProcessorFormatter(
        processors=[_facts, structlog.processors.format_exc_info, ProcessorFormatter.remove_processors_meta, last],
    )


def _facts(_logger: WrappedLogger, _name: str, said: EventDict) -> EventDict:
    """What every line begins with, and the fields of the record."""
    record: logging.LogRecord = said["_record"]
    begin = {
        "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": record.name.removeprefix("gpuarbiter_server."),
        "event": said["event"],
    }
    said.update(getattr(record, FIELDS, {}))
    return {**begin, **{key: value for key, value in said.items() if key not in begin}}


def _json(_logger: WrappedLogger, _name: str, said: EventDict) -> str:
    return json.dumps(said, default=str)


def _console(_logger: WrappedLogger, _name: str, said: EventDict) -> str:
    time = datetime.fromisoformat(said.pop("timestamp")).astimezone().strftime("%H:%M:%S.%f")[:-3]
    begin = f"{time} {said.pop('level').upper()} {said.pop('logger')}: {_printable(said.pop('event'))}"
    exception = said.pop("exception", None)
    fields = " ".join(_pair(key, value) for key, value in said.items())
    return f"{begin} {fields}".rstrip() + (f"\n{exception}" if exception else "")


def _pair(key: str, value: Any) -> str:
    if isinstance(value, float) and key.endswith(_SECONDS):
        return f"{key.removesuffix(_SECONDS)}={value:.3f}s"
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    return f"{key}={repr(text) if ' ' in text or not text.isprintable() else text}"


def _printable(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode()
