"""Takes a drain back: GPUs are granted again. Where roles are configured, this needs the admin role.

With --json: {}.
"""

import argparse

from gpuarbiter.cli.drain import add_gpus
from gpuarbiter.cli.output import Messages

EXAMPLES = (("gpu-arbiter resume --gpu 0", "one GPU"), ("gpu-arbiter resume --all", "all of them"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add_gpus(parser)


def run(arguments: argparse.Namespace, messages: Messages) -> int:
    """Resumes."""
    from gpuarbiter.cli.client import connect

    with connect(arguments) as arbiter:
        arbiter.admin.resume(arguments.gpu or (), all_gpus=arguments.all)
    messages.result("{}" if arguments.json else "resumed")
    return 0
