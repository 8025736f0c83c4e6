"""Asks the holder of a lease to yield, and ends the lease when the grace period is over."""

import argparse

from gpuarbiter.cli import kinds
from gpuarbiter.cli.output import Messages


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("lease_id", metavar="LEASE_ID", help="as `snapshot` shows it")
    parser.add_argument("--grace", type=kinds.duration, help="how long the holder has, such as 30s; unset: at once")
    parser.add_argument("--reason", default="", help="for the holder")


def run(arguments: argparse.Namespace, messages: Messages) -> int:
    """Revokes."""
    from gpuarbiter.cli.client import connect

    with connect(arguments) as arbiter:
        arbiter.admin.revoke(arguments.lease_id, grace=arguments.grace, reason=arguments.reason)
    messages.result("{}" if arguments.json else "asked to yield" if arguments.grace else "revoked")
    return 0
