"""A live view: GPUs with their memory ledger and readings, leases, the queue, and rates; q or Ctrl-C ends it.

The bar of the ledger: # committed to leases, + used by others (unleased), - kept free (headroom). Rates
are those of the last ten seconds, waits those of the last hundred leases of the GPU.

With --json: one protobuf message ArbiterSnapshot as canonical JSON per line, as `snapshot --watch` has it.
"""

import argparse
import os
import shutil
import sys
import threading
from datetime import UTC, timedelta
from typing import Any

from gpuarbiter.cli import kinds, snapshot
from gpuarbiter.cli.output import Messages

# Drawn again so often at least: waits and holds go on.
_REDRAW_SECONDS = 1.0
_QUIT = frozenset("qQ")

MORE_EXIT_CODES = {"143": "SIGTERM"}
ENVIRONMENT = {
    "NO_COLOR": "no colours, when it is set to anything",
    "COLUMNS, LINES": "of a frame that does not go to a terminal (default: 80, and as many lines as it takes)",
}
EXAMPLES = (
    ("gpu-arbiter top", "live, until q or Ctrl-C"),
    ("gpu-arbiter top --once | tee now.txt", "one frame"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "--gpu", action="append", metavar="KEY", help="key, index or UUID; may be repeated (default: all)"
    )
    parser.add_argument(
        "--interval",
        type=kinds.duration,
        default=timedelta(seconds=1),
        metavar="DURATION",
        help="new states at most so often (default: 1s)",
    )
    parser.add_argument("--once", action="store_true", help="one frame, also to a pipe; COLUMNS and LINES bound it")
    parser.set_defaults(refuse=parser.error)


def run(arguments: argparse.Namespace, messages: Messages) -> int:
    """Shows it."""
    if not (arguments.once or arguments.json or sys.stdout.isatty()):
        arguments.refuse("a live view needs a terminal; --once prints one frame, --json a line for each state")
    from gpuarbiter.cli.client import connect

    with connect(arguments) as arbiter:
        if arguments.json:
            return _lines(arbiter, arguments, messages)
        if arguments.once:
            state = arbiter.snapshot(arguments.gpu or ())
            messages.result(_written(_once(state)))
            return 0
        return _live(arbiter, arguments)


def _lines(arbiter: Any, arguments: argparse.Namespace, messages: Messages) -> int:
    gpus = arguments.gpu or ()
    states = [arbiter.snapshot(gpus)] if arguments.once else arbiter.watch(gpus, min_interval=arguments.interval)
    for state in states:
        messages.result(snapshot.as_json(state, indent=None))
    return 0


def _once(state: Any) -> str:
    from gpuarbiter._top.frame import render

    # Without a terminal and without LINES, as many lines as it takes.
    size = shutil.get_terminal_size((80, 10_000))
    now = state.snapshot_time.ToDatetime(tzinfo=UTC)
    return "\n".join(render(state, None, now, size.columns, size.lines, colour=_colour()))


def _live(arbiter: Any, arguments: argparse.Namespace) -> int:
    from gpuarbiter._top.screen import Screen
    from gpuarbiter._top.states import States

    with Screen() as screen:
        states = States(lambda: arbiter.watch(arguments.gpu or (), min_interval=arguments.interval), screen.wake)
        follower = threading.Thread(target=states.follow, daemon=True, name="gpuarbiter-top")
        follower.start()
        try:
            while not _QUIT & set(screen.wait(_REDRAW_SECONDS)):
                size = screen.size()
                screen.draw([_written(line) for line in _frame(states, size)])
        finally:
            states.close()
            arbiter.close()
            follower.join(timeout=1.0)
    return 0


def _frame(states: Any, size: os.terminal_size) -> list[str]:
    from gpuarbiter._top import text
    from gpuarbiter._top.frame import render
    from gpuarbiter._units import format_duration

    away = states.away()
    view = states.view()
    notice = "" if away is None else f"the arbiter is away for {format_duration(away[0])}, asking again: {away[1]}"
    if view is None:
        said = [text.Part(notice or "waiting for the arbiter", text.RED if notice else text.DIM)]
        return [text.paint(said, size.columns, colour=_colour())]
    return render(view.snapshot, view.previous, view.now, size.columns, size.lines, notice=notice, colour=_colour())


def _colour() -> bool:
    """https://no-color.org: not when NO_COLOR is set to anything."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _written(text: str) -> str:
    """With question marks where the terminal's encoding lacks a character."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)
