"""Shows what happened, oldest first: the arbiter's audit trail. Where roles are configured, this needs the admin role.

As text, a line for each event. As jsonl (or with --json), one protobuf message ListEventsResponse as canonical JSON
per line. As csv, RFC 4180 with the columns sequence, event_time (UTC), type, lease_id, request_id, task_type,
client_id, namespace, pod, gpus (separated by spaces), fencing_token, detail. As chrome-trace, leases, waits and what
happened to them, for https://ui.perfetto.dev and chrome://tracing.
"""

import argparse
import io
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gpuarbiter.cli import kinds
from gpuarbiter.cli.output import Messages

_TRACE = "chrome-trace"
FORMATS = ("text", "jsonl", "csv", _TRACE)

EXAMPLES = (
    ("gpu-arbiter events --follow", "all that is kept, then what happens"),
    ("gpu-arbiter events --since 10m --format csv >events.csv", "for a spreadsheet"),
    ("gpu-arbiter events --format chrome-trace >trace.json", "for https://ui.perfetto.dev"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--format", choices=FORMATS, help="text, jsonl, csv or chrome-trace (default: text)")
    parser.add_argument(
        "--since", type=kinds.since, metavar="TIME", help="events from then on: 10m (ago), or an ISO time (UTC)"
    )
    parser.add_argument("--after", type=int, default=0, metavar="SEQUENCE", help="events after this one (default: all)")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="at most so many (default: no limit)")
    parser.add_argument(
        "--follow", action="store_true", help="then the new ones as they happen, until Ctrl-C; not with chrome-trace"
    )
    parser.set_defaults(refuse=parser.error)


def run(arguments: argparse.Namespace, messages: Messages) -> int:
    """Shows them."""
    if arguments.json and arguments.format not in {None, "jsonl"}:
        arguments.refuse(f"--json is --format jsonl; not with --format {arguments.format}")
    chosen = arguments.format or ("jsonl" if arguments.json else "text")
    if chosen == _TRACE and arguments.follow:
        arguments.refuse(f"--follow has no end, and a {_TRACE} is complete; leave one out")
    from gpuarbiter.cli.client import connect

    with connect(arguments) as arbiter:
        events = arbiter.admin.events(
            after_sequence=arguments.after, since=arguments.since, limit=arguments.limit, follow=arguments.follow
        )
        for line in _writer(chosen)(events):
            messages.result(line)
    return 0


def _writer(chosen: str) -> Callable[[Iterable[Any]], Iterator[str]]:
    """What turns events into lines."""
    if chosen == "csv":
        return _csv
    if chosen == _TRACE:
        from gpuarbiter._trail import chrome

        return chrome.lines
    return lambda events: map(_json if chosen == "jsonl" else _text, events)


def _csv(events: Iterable[Any]) -> Iterator[str]:
    from gpuarbiter._trail import table

    if isinstance(sys.stdout, io.TextIOWrapper):
        # Lines end with CRLF on every system; Windows would make CR CRLF of it.
        sys.stdout.reconfigure(newline="\n")
    return (f"{row}\r" for row in table.rows(events))


def _json(event: Any) -> str:
    from google.protobuf.json_format import MessageToJson

    return MessageToJson(event, indent=None, always_print_fields_with_no_presence=True)


def _text(event: Any) -> str:
    from gpuarbiter._convert import enum_name
    from gpuarbiter.v1 import admin_pb2

    moment = event.event_time.ToDatetime().isoformat(sep=" ", timespec="milliseconds") + "Z"
    kind = enum_name(admin_pb2.EventType, event.type)
    facts = [event.task_type, event.holder.client_id, ",".join(event.gpus), event.lease_id, event.detail]
    return "  ".join([str(event.sequence), moment, kind, *filter(None, facts)])
