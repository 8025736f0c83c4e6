"""What /openapi.json says and what a real arbiter answers, held to each other by schemathesis.

It makes requests up from the description, good and bad ones, and compares every answer with it. Always the same ones:
nothing in here is random.
"""

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.process import Arbiterd

PROGRAM = Path(sys.executable).with_name("schemathesis")
UPDATE = "/config/update"
LOOKING = {
    "GET /",
    "GET /health",
    "GET /analyze",
    "POST /analyze",
    "GET /results",
    "GET /results/low",
    "GET /results/stats",
    "GET /config",
}
# It runs when it is asked to, or when a change makes it.
SETTINGS = (
    "gpus=sim:2x16GiB",
    "sampler={interval: 20ms, fast_interval: 20ms}",
    "analysis={interval: 1h, time_window: 2s, step: 200ms}",
)


def held(arbiter: Arbiterd, folder: Path, *options: str, examples: int = 25) -> dict[str, Any]:
    """The report of a run with these options; fails with everything that was found."""
    report = folder / "report.json"
    said = subprocess.run(
        [
            PROGRAM,
            "run",
            f"http://{arbiter.http}/openapi.json",
            "--generation-deterministic",
            f"--max-examples={examples}",
            # How fast it is decides nothing here.
            "--suppress-health-check=too_slow",
            "--no-color",
            "--report-json-path",
            str(report),
            *options,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    told: dict[str, Any] = json.loads(report.read_text())
    assert told["complete"]
    assert told["errors"] == []
    assert told["operations"]["tested"] == told["operations"]["selected"]
    return told


def authorization(arbiter: Arbiterd) -> tuple[str, str]:
    return ("--header", f"Authorization: Bearer {arbiter.admin_token}")


async def test_every_answer_is_as_described(arbiterd: Callable[..., Arbiterd], folder: Path):
    arbiter = arbiterd(*SETTINGS)
    told = await asyncio.to_thread(held, arbiter, folder, f"--exclude-path={UPDATE}")
    assert told["valid_rates"].keys() >= LOOKING


async def test_changes_are_taken_or_refused_as_described(arbiterd: Callable[..., Arbiterd], folder: Path):
    arbiter = arbiterd(*SETTINGS)
    # What fits the schema of each key may still not fit together, which 422 is described for.
    options = (f"--include-path={UPDATE}", "--exclude-checks=positive_data_acceptance", *authorization(arbiter))
    told = await asyncio.to_thread(held, arbiter, folder, *options, examples=100)
    rates = told["valid_rates"][f"POST {UPDATE}"]["fuzzing"]
    assert rates["accepted"] > 20


async def test_without_the_token_every_change_is_refused_as_described(arbiterd: Callable[..., Arbiterd], folder: Path):
    arbiter = arbiterd(*SETTINGS)

    def config() -> Any:
        with urllib.request.urlopen(f"http://{arbiter.http}/config", timeout=20) as answer:
            return json.load(answer)

    before = await asyncio.to_thread(config)
    told = await asyncio.to_thread(held, arbiter, folder, f"--include-path={UPDATE}")
    assert told["valid_rates"] == {}
    assert await asyncio.to_thread(config) == before
