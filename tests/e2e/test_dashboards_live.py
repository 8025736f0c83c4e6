"""Every panel of every dashboard shows something when it is put before a real Prometheus and an arbiter under load."""

import asyncio
import json
import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from e2e.harness.mixed_load import SETTINGS, MixedLoad
from e2e.harness.prometheus import Prometheus, scrape
from fakes.nvml import FakeNvml
from support.process import Arbiterd

_FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "dashboards"
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


def shows_something(prometheus: Prometheus, question: Question) -> bool:
    """Whether there is a figure in the answer."""
    return any(not math.isnan(float(sample["value"][1])) for sample in prometheus.query(question.expression))


@pytest.mark.tool("prometheus")
async def test_no_panel_is_empty(arbiterd: Callable[..., Arbiterd], tool: Callable[[str], str], tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=2)
    arbiter = arbiterd(*SETTINGS, more=fake.env)
    config: dict[str, Any] = scrape(_JOB, arbiter.http, "500ms")
    unanswered = [*questions(), *choices()]
    assert len(unanswered) > 100
    with Prometheus(tool("prometheus"), config, tmp_path / "prometheus") as prometheus:
        async with MixedLoad(arbiter, fake) as load:
            deadline = time.monotonic() + _LONGEST_SECONDS
            while unanswered and time.monotonic() < deadline:
                load.check()
                unanswered = await asyncio.to_thread(
                    lambda asked: [each for each in asked if not shows_something(prometheus, each)], unanswered
                )
                await asyncio.sleep(_INTERVAL_SECONDS)
        problems = prometheus.problems()
    silent = "\n".join(f"{each.where}:\n  {each.expression}" for each in unanswered)
    assert not unanswered, f"{len(unanswered)} empty after {load.rounds} rounds\n{silent}\n{problems}"
