"""Looks at what a running arbiter shows to monitors: health, the page of metrics and its form, and its figures.

For the figures it takes two small shared leases of the task type gpu-arbiter-check for a moment. PASS, FAIL or
SKIP for each line; what cannot be looked at because others use the arbiter is skipped, which is no failure.
Exit code: 0 when nothing failed, 1 otherwise.
With --json: {"passed": true, "checks": [{"check": …, "status": "PASS", "found": …}]}.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gpuarbiter.cli import kinds
from gpuarbiter.cli.output import Messages

if TYPE_CHECKING:
    from gpuarbiter._check.lines import Line

FAILURE = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "--metrics",
        type=kinds.site,
        required=True,
        metavar="URL",
        help="the arbiter's HTTP side, such as http://127.0.0.1:9402",
    )


def run(arguments: argparse.Namespace, messages: Messages) -> int:
    """Looks, and says what it found."""
    lines = []
    for line in _lines(arguments):
        lines.append(line)
        if not arguments.json:
            messages.result(_text(line))
    tally = Counter(line.status.value for line in lines)
    passed = not tally["FAIL"]
    if arguments.json:
        checks = [{"check": line.check, "status": line.status.value, "found": line.found} for line in lines]
        messages.result(json.dumps({"passed": passed, "checks": checks}))
    else:
        messages.result(f"{tally['PASS']} passed, {tally['FAIL']} failed, {tally['SKIP']} skipped")
    return 0 if passed else FAILURE


def _lines(arguments: argparse.Namespace) -> "Iterator[Line]":
    from gpuarbiter._check.clients import Clients
    from gpuarbiter._check.form import Form
    from gpuarbiter._check.site import Site
    from gpuarbiter.cli.client import connect

    site = Site(arguments.metrics)
    form = Form(site)
    yield from form.lines()
    if form.readable:
        yield from Clients(site, lambda client_id: connect(arguments, client_id)).lines()


def _text(line: "Line") -> str:
    from gpuarbiter._top.text import clean

    # What the other side wrote is not to reach the terminal as it is.
    return f"{line.status.value}  {line.check:<36}  {clean(line.found)}"
