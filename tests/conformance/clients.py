"""The clients that play the scenarios: how each one's driver is started, and what it needs.

Law: these are this repository's; who writes another one names its driver in CONFORMANCE_DRIVER, and changes nothing.
"""

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from conformance import typescript

_PYTHON = (sys.executable, str(Path(__file__).with_name("drivers") / "python_driver.py"))


@dataclass(frozen=True)
class Client:
    """A client library."""

    name: str
    # Builds what is to be built, and returns the command of its driver; FileNotFoundError where something is missing.
    command: Callable[[], tuple[str, ...]]
    # Tools without which it cannot play.
    tools: tuple[str, ...] = ()


VARIABLE = "CONFORMANCE_DRIVER"
CLIENTS = (
    Client("python-async", lambda: (*_PYTHON, "asynchronous")),
    Client("python-sync", lambda: (*_PYTHON, "synchronous")),
    Client("typescript", typescript.command, tools=("node",)),
)


def clients(driver: str) -> tuple[Client, ...]:
    """This repository's, or the one whose driver is that command."""
    return (Client("driver", lambda: tuple(shlex.split(driver))),) if driver else CLIENTS
