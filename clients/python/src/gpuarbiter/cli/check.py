"""Looks at a set-up line by line, from the address to a lease, and says what to do about what is not right.

PASS, WARN (it works, but not as well as it could), FAIL or SKIP (others use what it would need) for each line: the
address and who listens there, credentials, version, clock, journal, NVML, each GPU, a grant, and whether the arbiter
sees the processes here. With --metrics it looks instead at what a running arbiter shows to monitors: health, the page
of metrics and its form, and its figures.

It takes one small shared lease of the task type gpu-arbiter-check for a moment (two with --metrics).

With --json: {"passed": true, "checks": [{"check": …, "status": "PASS", "found": …, "todo": …}]}.
"""

import argparse
import importlib.util
import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from gpuarbiter.cli import exit_codes, kinds
from gpuarbiter.cli.output import Messages

if TYPE_CHECKING:
    from gpuarbiter import Arbiter
    from gpuarbiter._check.lines import Line

MORE_EXIT_CODES = {"1": "a line failed (lines that warn or were skipped are no failure)"}
ENVIRONMENT = {"GPU_ARBITER_ON_UNAVAILABLE": "looked at: whether programs go on without an arbiter"}
EXAMPLES = (
    ("gpu-arbiter check", "from the address to a lease"),
    ("gpu-arbiter check --json | jq '.checks[] | select(.todo != \"\")'", "what is to be done"),
    ("gpu-arbiter check --metrics http://127.0.0.1:9402", "what monitors see"),
)
# Columns for the name of a check, by what is looked at.
_SHORT, _LONG = 18, 36


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "--metrics",
        type=kinds.site,
        metavar="URL",
        help="look at the arbiter's HTTP side instead, such as http://127.0.0.1:9402",
    )


def run(arguments: argparse.Namespace, messages: Messages) -> int:
    """Looks, and says what it found."""
    lines = []
    for line in _lines(arguments):
        lines.append(line)
        if not arguments.json:
            messages.result(_text(line, _SHORT if arguments.metrics is None else _LONG))
    tally = Counter(line.status.value for line in lines)
    passed = not tally["FAIL"]
    if arguments.json:
        checks = [line._asdict() | {"status": line.status.value} for line in lines]
        messages.result(json.dumps({"passed": passed, "checks": checks}))
    else:
        warned = f"{tally['WARN']} warned, " if tally["WARN"] else ""
        messages.result(f"{tally['PASS']} passed, {warned}{tally['FAIL']} failed, {tally['SKIP']} skipped")
    return 0 if passed else exit_codes.FAILURE


def _lines(arguments: argparse.Namespace) -> "Iterator[Line]":
    from gpuarbiter.cli.client import connect

    def client(client_id: str) -> "Arbiter":
        return connect(arguments, client_id)

    if arguments.metrics is None:
        from gpuarbiter._check.setup import Setup

        return Setup(arguments.address, client).lines()
    return _metrics(arguments.metrics, client)


def _metrics(url: str, client: "Callable[[str], Arbiter]") -> "Iterator[Line]":
    if importlib.util.find_spec("prometheus_client") is None:
        raise ValueError("--metrics needs prometheus-client: pip install 'gpu-arbiter-client[check]'")
    from gpuarbiter._check.clients import Clients
    from gpuarbiter._check.form import Form
    from gpuarbiter._check.site import Site

    site = Site(url)
    form = Form(site)
    yield from form.lines()
    if form.readable:
        yield from Clients(site, client).lines()


def _text(line: "Line", width: int) -> str:
    from gpuarbiter._top.text import clean

    # What the other side wrote is not to reach the terminal as it is.
    todo = f" -- {line.todo}" if line.todo else ""
    return f"{line.status.value}  {line.check:<{width}}  {clean(line.found)}{todo}"
