"""The arbiter that a command talks to."""

import argparse

from gpuarbiter import Arbiter


def connect(arguments: argparse.Namespace, client_id: str | None = None) -> Arbiter:
    """The arbiter of --address and --token."""
    # A command that cannot reach the arbiter says so, whatever the environment tells libraries.
    return Arbiter(arguments.address, client_id=client_id, token=arguments.token or None, on_unavailable="fail")
