"""The command gpu-arbiter.

Law: main returns an exit code and never a traceback: what goes wrong is one line on stderr. Nothing of
gRPC is imported before a command runs, so that --help and a mistyped option answer at once.
"""

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from gpuarbiter._version import __version__
from gpuarbiter.cli import exit_codes, pages
from gpuarbiter.cli.output import Messages

# In the order of --help; the dash of a command is an underscore in its module.
COMMANDS = {
    "run": "run a command under a lease, as under flock",
    "snapshot": "show GPUs, leases and the queue",
    "top": "a live view of GPUs, leases, the queue and rates",
    "analyze": "who uses which GPU how much, and what to think of it",
    "release": "end a lease, or take a waiting request back",
    "drain": "stop granting on GPUs (operators)",
    "resume": "take a drain back (operators)",
    "revoke": "ask a holder to yield, then end its lease (operators)",
    "events": "show what happened (operators)",
    "check": "look at a set-up, and say what to do",
    "completion": "completion for bash, zsh or fish",
    "sim-job": "behave like a job on simulated GPUs",
}


EXAMPLES = (
    ("gpu-arbiter run -- python train.py", "a command under a lease"),
    ("gpu-arbiter top", "who has what, live"),
    ("gpu-arbiter check", "is all as it should be?"),
    ("gpu-arbiter run --help", "the page of a command"),
)


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    whole = argparse.ArgumentParser(
        prog="gpu-arbiter",
        description="Leases on the GPUs of this machine: who may use which GPU, with how much memory, for how long.",
        epilog=pages.examples(EXAMPLES),
        formatter_class=pages.Formatter,
    )
    whole.add_argument("--version", action="version", version=f"%(prog)s {__version__}", help="show it, and end")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    for name, summary in COMMANDS.items():
        module = _module(name)
        page = commands.add_parser(
            name,
            help=summary,
            description=pages.description(module),
            epilog=pages.epilog(module),
            formatter_class=pages.Formatter,
        )
        module.add_arguments(page)
        _add_shared(page, module)
    return whole


def _add_shared(page: argparse.ArgumentParser, module: Any) -> None:
    if pages.asks_an_arbiter(module):
        arbiter = page.add_argument_group("the arbiter")
        arbiter.add_argument(
            "--address",
            metavar="ADDRESS",
            help="host:port or unix:/path (default: GPU_ARBITER_ADDRESS, otherwise 127.0.0.1:50051)",
        )
        arbiter.add_argument(
            "--token",
            metavar="TOKEN",
            help="bearer token; other users of the machine can see an argument (default: GPU_ARBITER_TOKEN)",
        )
    if pages.writes_json(module):
        output = page.add_argument_group("output")
        output.add_argument("--json", action="store_true", help="JSON for programs instead of text for people")


def _module(name: str) -> Any:
    return importlib.import_module(f"gpuarbiter.cli.{name.replace('-', '_')}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code."""
    arguments = parser().parse_args(argv)
    messages = Messages(as_json=getattr(arguments, "json", False))
    # Warnings of the library and of gRPC; what matters of them the commands say themselves.
    logging.getLogger("gpuarbiter").addHandler(logging.NullHandler())
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    module = _module(arguments.command)
    failure: int = getattr(module, "FAILURE", exit_codes.FAILURE)
    try:
        code: int = module.run(arguments, messages)
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough, as with `| head`
        # Or the interpreter would try to flush what is left, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError) as error:
        messages.error(str(error))
        return failure
    except Exception as error:
        # Looked at late, so that the errors' module is not loaded for --help.
        from gpuarbiter._errors import ArbiterError

        if not isinstance(error, ArbiterError):
            raise
        messages.error(str(error), reason=error.reason)
        return failure
    return code
