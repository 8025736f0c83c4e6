"""Asks the holder of a lease to yield, and ends the lease when the grace period is over.

The arbiter cannot stop a process that ignores it: the end of a lease does not end the holder. Where roles are
configured, this needs the admin role.

With --json: {}.
"""

import argparse

from gpuarbiter.cli import kinds
from gpuarbiter.cli.output import Messages

EXAMPLES = (
    (
        'gpu-arbiter revoke 6b0231bc00000-4396e49644367375 --grace 10s --reason "wrong machine"',
        "the holder has ten seconds",
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("lease_id", metavar="LEASE_ID", help="as `snapshot` shows it")
    parser.add_argument(
        "--grace", type=kinds.duration, metavar="DURATION", help="how long the holder has, such as 30s (default: 0)"
    )
    parser.add_argument("--reason", default="", metavar="TEXT", help="for the holder")


def run(arguments: argparse.Namespace, messages: Messages) -> int:
    """Revokes."""
    from gpuarbiter.cli.client import connect

    with connect(arguments) as arbiter:
        arbiter.admin.revoke(arguments.lease_id, grace=arguments.grace, reason=arguments.reason)
    messages.result("{}" if arguments.json else "asked to yield" if arguments.grace else "revoked")
    return 0
