"""Shows what the arbiter knows: GPUs with their memory ledger, leases, and the queue with everyone's reason to wait.

What is not known is a dash, never a zero.

With --json: the protobuf message ArbiterSnapshot as canonical JSON (camelCase names, 64-bit numbers as
strings, unset optional fields left out); with --watch one line for each state.
"""

import argparse
import sys
from datetime import timedelta
from typing import Any

from gpuarbiter.cli import kinds
from gpuarbiter.cli.output import Messages

EXAMPLES = (
    ("gpu-arbiter snapshot", "how it stands"),
    ("gpu-arbiter snapshot --watch --gpu 0", "again on each change, of one GPU"),
    ("gpu-arbiter snapshot --json | jq '.gpus[].memory.admissibleBytes'", "what could be declared now"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "--gpu", action="append", metavar="KEY", help="key, index or UUID; may be repeated (default: all)"
    )
    parser.add_argument("--watch", action="store_true", help="again whenever something changes, until Ctrl-C")
    parser.add_argument(
        "--interval",
        type=kinds.duration,
        default=timedelta(seconds=1),
        metavar="DURATION",
        help="with --watch: at most so often (default: 1s)",
    )
    parser.add_argument("--processes", action="store_true", help="also the processes that the driver sees")
    parser.add_argument(
        "--tickets", type=int, default=0, metavar="N", help="at most so many waiting requests (default: 100)"
    )


def run(arguments: argparse.Namespace, messages: Messages) -> int:
    """Shows it."""
    from gpuarbiter.cli.client import connect

    gpus = arguments.gpu or ()
    with connect(arguments) as arbiter:
        if not arguments.watch:
            snapshot = arbiter.snapshot(gpus, processes=arguments.processes, max_tickets=arguments.tickets)
            messages.result(_text(snapshot, arguments, indent=2))
            return 0
        before = "\x1b[H\x1b[2J" if sys.stdout.isatty() and not arguments.json else ""
        for snapshot in arbiter.watch(
            gpus, min_interval=arguments.interval, processes=arguments.processes, max_tickets=arguments.tickets
        ):
            messages.result(before + _text(snapshot, arguments, indent=None))
    return 0


def _text(snapshot: Any, arguments: argparse.Namespace, *, indent: int | None) -> str:
    if not arguments.json:
        from gpuarbiter.cli.tables import render

        return render(snapshot, processes=arguments.processes)
    return as_json(snapshot, indent=indent)


def as_json(snapshot: Any, *, indent: int | None) -> str:
    """A snapshot as canonical JSON; without indent on one line."""
    from google.protobuf.json_format import MessageToJson

    return MessageToJson(snapshot, indent=indent, always_print_fields_with_no_presence=True)
