"""Runs a command under a lease, as flock runs one under a lock.

Waits for a GPU, sets CUDA_VISIBLE_DEVICES (and GPU_ARBITER_LEASE_ID, _FENCING_TOKEN, _TASK, _GPUS, _MEMORY_BYTES and
_ADDRESS), runs the command, ends whatever it left running, and gives the GPU back. Inside another run it joins
the lease of that one.

Exit code: the command's (128 + signal when a signal ended it); 122 when it was not ready in time; 123 when the lease
was lost; 124 when no GPU could be had in time; 125 when gpu-arbiter itself failed; 126 and 127 when the command
cannot be run or is not found.
"""

import argparse
import os
import queue
import shutil
from datetime import timedelta

from gpuarbiter._guard.command import supervised
from gpuarbiter.cli import exit_codes, kinds
from gpuarbiter.cli.forwarding import Interrupted, Signals
from gpuarbiter.cli.output import Messages

FAILURE = exit_codes.RUN_FAILURE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--task", default="RUN", help="task type, which picks the policy (default: RUN)")
    parser.add_argument(
        "--gpu", action="append", metavar="KEY", help="key, index or UUID; may be repeated; default: any"
    )
    parser.add_argument("--count", type=kinds.positive, default=1, help="how many GPUs, all together (default: 1)")
    parser.add_argument("--memory", type=kinds.size, help="peak memory on each GPU, such as 6GiB")
    parser.add_argument("--priority", type=int, help="0 to 100, higher first")
    parser.add_argument("--wait", type=kinds.duration, help="how long to wait, such as 10m; 0: not at all")
    parser.add_argument("--hold", type=kinds.duration, help="how long the command is meant to run, such as 2h")
    parser.add_argument("--shared", action="store_true", help="beside other shared leases")
    parser.add_argument(
        "--until-ready", type=kinds.readiness, metavar="URL", help="exclusive until that answers (2xx), then shared"
    )
    parser.add_argument(
        "--ready-timeout",
        type=kinds.duration,
        default=timedelta(minutes=30),
        metavar="DURATION",
        help="with --until-ready: at most so long; 0: without limit (default: 30m)",
    )
    parser.add_argument(
        "--on-yield",
        type=kinds.signal_name,
        metavar="SIGNAL",
        help="sent to the command when the arbiter asks for the GPU, such as TERM or USR1 (default: none)",
    )
    parser.add_argument("--new-lease", action="store_true", help="inside another run: not its lease, one of its own")
    parser.add_argument("argv", nargs="+", metavar="COMMAND", help="the command and its arguments, after --")


def run(arguments: argparse.Namespace, messages: Messages) -> int:
    """Runs the command; returns the exit code."""
    command: list[str] = arguments.argv
    unusable = _unusable(command[0])
    if unusable is not None:
        code, why = unusable
        messages.error(f"{command[0]}: {why}")
        return code
    events: queue.SimpleQueue[object] = queue.SimpleQueue()
    with supervised(events) as guarded:
        # Imported before signals are ours: an interrupted import would leave half a module.
        from gpuarbiter import Declined, WaitTimeout
        from gpuarbiter.cli.leased import Run

        try:
            with Signals(events) as signals:
                return Run(arguments, messages, events, signals, guarded).code()
        except Interrupted as interrupted:
            messages.clear()
            return exit_codes.SIGNALLED + interrupted.number
        except (WaitTimeout, Declined) as error:
            messages.error(str(error), reason=error.reason)
            return exit_codes.NO_GPU


def _unusable(program: str) -> tuple[int, str] | None:
    """Why it cannot be run, known before anyone waits for a GPU."""
    if shutil.which(program):
        return None
    if os.sep in program and os.path.lexists(program):
        return exit_codes.CANNOT_EXECUTE, "cannot be executed"
    return exit_codes.NOT_FOUND, "command not found"
