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
from gpuarbiter.cli import exit_codes
from gpuarbiter.cli.output import Messages

# In the order of --help; the dash of a command is an underscore in its module.
COMMANDS = {
    "run": "run a command under a lease, as flock does under a lock",
    "snapshot": "show GPUs, leases and the queue",
    "top": "a live view of GPUs, leases, the queue and rates",
    "release": "end a lease, or take a waiting request back",
    "drain": "stop granting on GPUs (operators)",
    "resume": "take a drain back (operators)",
    "revoke": "ask a holder to yield, then end its lease (operators)",
    "events": "show what happened (operators)",
    "check": "look at what a running arbiter shows to monitors",
    "sim-job": "behave like a job on simulated GPUs",
}


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--address",
        help='"host:port" or "unix:/path" of the arbiter; otherwise GPU_ARBITER_ADDRESS, or 127.0.0.1:50051',
    )
    common.add_argument("--token", help="bearer token; otherwise GPU_ARBITER_TOKEN (other users can see an argument)")
    common.add_argument("--json", action="store_true", help="write JSON for programs instead of text for people")
    whole = argparse.ArgumentParser(prog="gpu-arbiter", description="Leases on the GPUs of this machine.")
    whole.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        module = _module(name)
        sub = commands.add_parser(name, parents=[common], help=summary, description=module.__doc__)
        sub.formatter_class = argparse.RawDescriptionHelpFormatter
        module.add_arguments(sub)
    return whole


def _module(name: str) -> Any:
    return importlib.import_module(f"gpuarbiter.cli.{name.replace('-', '_')}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code."""
    arguments = parser().parse_args(argv)
    messages = Messages(as_json=arguments.json)
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
