"""Runs a command under a lease, as flock runs one under a lock.

Waits for a GPU, runs the command with CUDA_VISIBLE_DEVICES set to it, passes signals on, ends whatever the command
left running once it has ended, gives the GPU back, and passes the exit code on. When gpu-arbiter itself is killed,
the command ends too, and the arbiter keeps others off the GPU until then.

Options of gpu-arbiter come first; the first word that is none begins the command, as does what follows "--".

Inside another run nothing is asked for: the command joins the lease of that one, or is refused when it asks for more
than that lease has.

With --json, the lines on stderr are objects with "event", "message" and facts such as "position".
"""

import argparse
import os
import queue
import shutil
import signal
import sys
from datetime import timedelta

from gpuarbiter._guard.command import supervised
from gpuarbiter.cli import exit_codes, kinds
from gpuarbiter.cli.forwarding import Interrupted, Signals
from gpuarbiter.cli.output import Messages

FAILURE = exit_codes.RUN_FAILURE


# The lease outlives its stream for so long: until the guard has ended the command of a killed wrapper, and while the
# arbiter is started again.
TTL = timedelta(minutes=1)
EXIT_CODES = {
    "the command's": "it ran; 128 + N when signal N ended it",
    "2": "wrong usage",
    str(exit_codes.NOT_READY): "it was not ready in time (--until-ready)",
    str(exit_codes.LEASE_LOST): "the lease was lost, and the command ended",
    str(exit_codes.NO_GPU): "no GPU could be had in time, or the policy said to skip or to use the CPU",
    str(exit_codes.RUN_FAILURE): "gpu-arbiter failed: the arbiter is out of reach, or it refused",
    str(exit_codes.CANNOT_EXECUTE): "the command cannot be executed",
    str(exit_codes.NOT_FOUND): "the command is not found",
    "128 + N": "signal N came while it waited",
}
ENVIRONMENT = {
    "GPU_ARBITER_LEASE_ID": "read: the lease to join; set for the command, as are all below",
    "CUDA_VISIBLE_DEVICES": "the GPUs, by UUID (by index, with CUDA_DEVICE_ORDER=PCI_BUS_ID, where no UUID is known)",
    "GPU_ARBITER_FENCING_TOKEN": "the lease's number, higher than that of any earlier lease",
    "GPU_ARBITER_TASK": "the task type",
    "GPU_ARBITER_GPU_KEYS": "the keys of the GPUs, separated by commas",
    "GPU_ARBITER_MEMORY_BYTES": "the memory declared on each GPU; empty when none was",
}
EXAMPLES = (
    ("gpu-arbiter run -- python train.py", "on any GPU, alone, for as long as it takes"),
    ("gpu-arbiter run --memory 6GiB --shared -- ./serve --port 8000", "beside others, with 6 GiB"),
    ("gpu-arbiter run --gpu 0 --wait 10m -- make benchmark", "on this GPU, or exit code 124 after ten minutes"),
    ("gpu-arbiter run --count 2 --hold 2h -- torchrun --nproc-per-node 2 train.py", "on two GPUs"),
    (
        "gpu-arbiter run --memory 20GiB --until-ready http://127.0.0.1:8000/health -- vllm serve my-model",
        "alone while the model loads, then beside others",
    ),
    ("gpu-arbiter run --on-yield USR1 -- ./train --checkpoint-on-signal", "told when others want the GPU"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.usage = "gpu-arbiter run [OPTION]... [--] COMMAND [ARGUMENT]..."
    parser.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND", help="the command and its arguments")
    gpus = parser.add_argument_group("which GPUs")
    gpus.add_argument(
        "--gpu", action="append", metavar="KEY", help="key, index or UUID; may be repeated (default: any)"
    )
    gpus.add_argument(
        "--count", type=kinds.positive, default=1, metavar="N", help="how many GPUs, all together (default: 1)"
    )
    gpus.add_argument(
        "--memory",
        type=kinds.size,
        metavar="SIZE",
        help="peak memory on each GPU, such as 6GiB (default: the policy's)",
    )
    gpus.add_argument("--shared", action="store_true", help="beside other shared leases (default: the policy's)")
    when = parser.add_argument_group("when, and for how long")
    when.add_argument("--task", default="RUN", metavar="TYPE", help="task type, which picks the policy (default: RUN)")
    when.add_argument("--priority", type=int, metavar="N", help="0 to 100, higher first (default: the policy's)")
    when.add_argument(
        "--wait",
        type=kinds.duration,
        metavar="DURATION",
        help="wait at most so long, such as 10m; 0: not at all (default: the policy's; RUN waits without limit)",
    )
    when.add_argument(
        "--hold",
        type=kinds.duration,
        metavar="DURATION",
        help="how long it is meant to run, such as 2h (default: the policy's; RUN holds without limit)",
    )
    when.add_argument(
        "--ttl",
        type=kinds.duration,
        default=TTL,
        metavar="DURATION",
        help="an arbiter that is out of reach for so long costs the lease, or the place in the queue (default: 1m)",
    )
    command = parser.add_argument_group("the command")
    command.add_argument(
        "--until-ready",
        type=kinds.readiness,
        metavar="URL",
        help="exclusive until the command answers there, then shared: http and https with 2xx, tcp://host:port and "
        "unix:/path with a connection",
    )
    command.add_argument(
        "--ready-timeout",
        type=kinds.duration,
        default=timedelta(minutes=30),
        metavar="DURATION",
        help="with --until-ready: at most so long; 0: without limit (default: 30m)",
    )
    command.add_argument(
        "--on-yield",
        type=kinds.signal_name,
        metavar="SIGNAL",
        help="what it gets when the arbiter asks for the GPU, such as TERM or USR1 (default: none)",
    )
    command.add_argument("--new-lease", action="store_true", help="inside another run: not its lease, one of its own")
    parser.set_defaults(refuse=parser.error)


def run(arguments: argparse.Namespace, messages: Messages) -> int:
    """Runs the command; returns the exit code."""
    arguments.argv = command = _words(arguments.argv)
    if not command:
        arguments.refuse("the following arguments are required: COMMAND")
    unusable = _unusable(command[0])
    if unusable is not None:
        code, why = unusable
        messages.error(f"{command[0]}: {why}")
        return code
    code = _code(arguments, messages)
    if code == exit_codes.INTERRUPTED and os.name == "posix":
        _interrupt()
    return code


def _interrupt() -> None:
    """Ends as the command did: a script goes on after a 130, and ends after somebody who ended by Ctrl-C."""
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


def _code(arguments: argparse.Namespace, messages: Messages) -> int:
    events: queue.SimpleQueue[object] = queue.SimpleQueue()
    with supervised(events) as guarded:
        # Imported before signals are ours: an interrupted import would leave half a module.
        from gpuarbiter import ClientLimit, Declined, QueueFull, WaitTimeout
        from gpuarbiter.cli.leased import Run

        try:
            with Signals(events) as signals:
                return Run(arguments, messages, events, signals, guarded).code()
        except Interrupted as interrupted:
            messages.clear()
            return exit_codes.SIGNALLED + interrupted.number
        except (WaitTimeout, QueueFull, ClientLimit, Declined) as error:
            messages.error(str(error), reason=error.reason)
            return exit_codes.NO_GPU


def _words(rest: list[str]) -> list[str]:
    """The command, without the "--" in front of it."""
    return rest[1:] if rest[:1] == ["--"] else rest


def _unusable(program: str) -> tuple[int, str] | None:
    """Why it cannot be run, known before anyone waits for a GPU."""
    if shutil.which(program):
        return None
    if os.sep in program and os.path.lexists(program):
        return exit_codes.CANNOT_EXECUTE, "cannot be executed"
    return exit_codes.NOT_FOUND, "command not found"
