"""What the dashboards show of a real arbiter, by way of a real Prometheus: under load, idle, and when it is down.

The recording rules are asked under the same load.
"""

import asyncio
import json
import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from e2e.harness.mixed_load import SETTINGS, MixedLoad
from e2e.harness.prometheus import Prometheus, scrape
from fakes.nvml import FakeNvml
from fakes.polling import until
from support.process import Arbiterd

_DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
_FOLDER = _DEPLOY / "grafana" / "dashboards"
_RULES = _DEPLOY / "prometheus" / "rules" / "recording.yml"
_LONGEST_SECONDS = 45.0
_INTERVAL_SECONDS = 0.2
_JOB = "gpu-arbiter"
# As Grafana puts them in when everything is chosen.
_VARIABLES = {
    "$__rate_interval": "15s",
    "$__range": "60s",
    "$job": _JOB,
    "$instance": ".*",
    "$gpu": ".*",
    "$task": ".*",
}


class Question(NamedTuple):
    """A query, and where it stands."""

    where: str
    expression: str


def questions() -> Iterator[Question]:
    """The query of every target of every panel."""
    for path in sorted(_FOLDER.glob("*.json")):
        dashboard = json.loads(path.read_text())
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                where = f"{dashboard['title']} / {panel['title']} / {target['refId']}"
                yield Question(where, filled_in(target["expr"]))


def choices() -> Iterator[Question]:
    """What each variable is chosen from, as a query that has as many series as there are choices."""
    for path in sorted(_FOLDER.glob("*.json")):
        dashboard = json.loads(path.read_text())
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
                assert asked, variable
                where = f"{dashboard['title']} / the variable {variable['name']}"
                yield Question(where, f"count by ({asked[2]}) ({filled_in(asked[1])})")


def filled_in(text: str) -> str:
    """With a value for each variable."""
    for name in sorted(_VARIABLES, key=len, reverse=True):
        text = text.replace(name, _VARIABLES[name])
    assert "$" not in text, f"a variable that nobody knows: {text}"
    return text


def figures(prometheus: Prometheus, expression: str) -> list[float]:
    """What an answer shows."""
    return [float(sample["value"][1]) for sample in prometheus.query(expression)]


def shows_something(prometheus: Prometheus, question: Question) -> bool:
    """Whether there is a figure in the answer."""
    return not all(map(math.isnan, figures(prometheus, question.expression)))


async def left_unanswered(prometheus: Prometheus, load: MixedLoad, asked: list[Question]) -> list[Question]:
    """Asks until each question has been answered once; those that were not, in all the time there is."""
    deadline = time.monotonic() + _LONGEST_SECONDS
    while asked and time.monotonic() < deadline:
        load.check()
        asked = await asyncio.to_thread(
            lambda still: [each for each in still if not shows_something(prometheus, each)], asked
        )
        await asyncio.sleep(_INTERVAL_SECONDS)
    return asked


@pytest.mark.tool("prometheus")
async def test_no_panel_is_empty(arbiterd: Callable[..., Arbiterd], tool: Callable[[str], str], tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=2)
    arbiter = arbiterd(*SETTINGS, more=fake.env)
    config: dict[str, Any] = scrape(_JOB, arbiter.http, "500ms")
    asked = [*questions(), *choices()]
    assert len(asked) > 100
    with Prometheus(tool("prometheus"), config, tmp_path / "prometheus") as prometheus:
        async with MixedLoad(arbiter, fake) as load:
            silent = await left_unanswered(prometheus, load, asked)
        problems = prometheus.problems()
    shown = "\n".join(f"{each.where}:\n  {each.expression}" for each in silent)
    assert not silent, f"{len(silent)} empty after {load.rounds} rounds\n{shown}\n{problems}"


@pytest.mark.tool("prometheus")
async def test_every_recording_rule_records_something(
    arbiterd: Callable[..., Arbiterd], tool: Callable[[str], str], tmp_path: Path
) -> None:
    fake = FakeNvml(tmp_path, gpus=2)
    arbiter = arbiterd(*SETTINGS, more=fake.env)
    config = scrape(_JOB, arbiter.http, "500ms") | {"rule_files": [str(_RULES)]}
    groups = yaml.safe_load(_RULES.read_text())["groups"]
    records = sorted({rule["record"] for group in groups for rule in group["rules"]})
    assert records
    with Prometheus(tool("prometheus"), config, tmp_path / "prometheus") as prometheus:
        async with MixedLoad(arbiter, fake) as load:
            silent = await left_unanswered(prometheus, load, [Question(name, name) for name in records])
        assert prometheus.problems() == []
    assert [each.where for each in silent] == []


@pytest.mark.tool("prometheus")
def test_an_idle_arbiter_shows_0_or_nothing_and_one_that_is_down_is_shown_as_down(
    arbiterd: Callable[..., Arbiterd], tool: Callable[[str], str], tmp_path: Path
) -> None:
    arbiter = arbiterd("policies.ASR={}")
    config = scrape(_JOB, arbiter.http, "500ms")
    asked = {question.where: question.expression for question in questions()}
    with Prometheus(tool("prometheus"), config, tmp_path / "prometheus") as prometheus:
        requests = asked["GpuArbiter / Overview / Requests by outcome / A"]
        until(lambda: figures(prometheus, requests), "for a rate")
        shown = {where: figures(prometheus, expression) for where, expression in asked.items()}
        assert [where for where, values in shown.items() if any(map(math.isnan, values))] == []
        nothing_happens = {
            "Overview / Arbiter": [1.0],
            "Overview / GPUs lost": [0.0],
            # Simulated GPUs: it is not in use, which is not the same as down.
            "Overview / NVML": [2.0],
            "Overview / Waiting": [0.0],
            "Overview / Longest wait": [],
            "Overview / Memory overcommitted": [0.0],
            "Overview / Failure rate": [0.0],
            "Overview / CPU fallback rate": [0.0],
            "Overview / Waiting by reason": [],
            "Leases and queue / Queue in use": [0.0],
            "Leases and queue / Oldest lease": [],
            "Work / Work done": [0.0],
        }
        assert {panel: shown[f"GpuArbiter / {panel} / A"] for panel in nothing_happens} == nothing_happens

        arbiter.stop()
        until(lambda: figures(prometheus, asked["GpuArbiter / Overview / Arbiter / A"]) == [0.0], "for it to be down")
        # What it said last is not shown as what is so now.
        assert figures(prometheus, asked["GpuArbiter / Overview / Waiting / A"]) == []
