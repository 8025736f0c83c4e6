"""The arbiter that a command talks to."""

import argparse
import os

from gpuarbiter import Arbiter
from gpuarbiter._address import TOKEN_VARIABLE


def connect(arguments: argparse.Namespace, client_id: str | None = None) -> Arbiter:
    """The arbiter of --address and --token."""
    # A command that cannot reach the arbiter says so, whatever the environment tells libraries.
    return Arbiter(arguments.address, client_id=client_id, token=token(arguments), on_unavailable="fail")


def token(arguments: argparse.Namespace) -> str | None:
    """The bearer token of --token or the environment."""
    return arguments.token or os.environ.get(TOKEN_VARIABLE) or None
