"""Cordons GPUs: nothing more is granted there, and requests wait. With --grace, holders are asked to yield.

The lease of a holder that does not yield within the grace period is revoked. `resume` takes it back. Where roles are
configured, this needs the admin role.

With --json: {"leasesLeft": N}.
"""

import argparse
import json

from gpuarbiter.cli import kinds
from gpuarbiter.cli.output import Messages

EXAMPLES = (
    ('gpu-arbiter drain --gpu 0 --grace 30s --reason "driver update"', "holders have 30 s"),
    ("gpu-arbiter drain --all", "no new grants; who holds goes on"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add_gpus(parser)
    parser.add_argument(
        "--grace", type=kinds.duration, metavar="DURATION", help="ask the holders to yield within so long, such as 30s"
    )
    parser.add_argument("--reason", default="", metavar="TEXT", help="for whoever asks why")


def add_gpus(parser: argparse.ArgumentParser) -> None:
    """Which GPUs: some, or all."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--gpu", action="append", metavar="KEY", help="key, index or UUID; may be repeated")
    which.add_argument("--all", action="store_true", help="all GPUs")


def run(arguments: argparse.Namespace, messages: Messages) -> int:
    """Drains, and says how many leases are left there."""
    from gpuarbiter.cli.client import connect

    with connect(arguments) as arbiter:
        left = arbiter.admin.drain(
            arguments.gpu or (), all_gpus=arguments.all, reason=arguments.reason, grace=arguments.grace
        )
    messages.result(json.dumps({"leasesLeft": left}) if arguments.json else f"cordoned; leases left: {left}")
    return 0
