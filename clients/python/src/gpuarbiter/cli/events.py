"""Shows what happened, oldest first: the arbiter's audit trail.

With --json: one protobuf message ListEventsResponse as canonical JSON per line.
"""

import argparse
from typing import Any

from gpuarbiter.cli.output import Messages


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--after", type=int, default=0, metavar="SEQUENCE", help="events after this one (default: all)")
    parser.add_argument("--limit", type=int, default=0, help="at most so many (default: no limit)")
    parser.add_argument("--follow", action="store_true", help="then the new ones as they happen, until Ctrl-C")


def run(arguments: argparse.Namespace, messages: Messages) -> int:
    """Shows them."""
    from gpuarbiter.cli.client import connect

    with connect(arguments) as arbiter:
        for event in arbiter.admin.events(
            after_sequence=arguments.after, limit=arguments.limit, follow=arguments.follow
        ):
            messages.result(_json(event) if arguments.json else _text(event))
    return 0


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
