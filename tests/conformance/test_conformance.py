"""Every scenario, by every client: `pytest tests/conformance -k "queue-order and python-sync"`."""

import json
import os
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from conformance.clients import VARIABLE, Client, clients
from conformance.runner import Runner
from conformance.scenario import Scenario, load_all
from conformance.stage import Stages


def _performances() -> list[Any]:
    """Those that want the same of their arbiter come in a row: they share one."""
    scenarios = sorted(load_all(), key=lambda each: (each.restarts, json.dumps(each.head.arbiter, sort_keys=True)))
    made = []
    for scenario in scenarios:
        for client in clients(os.environ.get(VARIABLE, "")):
            marks: list[Any] = [pytest.mark.tool(tool) for tool in client.tools]
            if client.name in scenario.head.known_failures:
                reason = scenario.head.known_failures[client.name]
                marks.append(pytest.mark.xfail(reason=reason, strict=True))
            made.append(pytest.param(scenario, client, marks=marks, id=f"{scenario.name}-{client.name}"))
    return made


@pytest.mark.parametrize(("scenario", "client"), _performances())
def test_scenario(scenario: Scenario, client: Client, stages: Stages, lacking: Callable[[str, str], NoReturn]):
    try:
        command = client.command()
    except FileNotFoundError as error:
        lacking(f"{client.name}'s packages", str(error))
    with stages.lend(scenario.head.arbiter, restarts=scenario.restarts) as stage:
        Runner(scenario, command, stage).play()
