"""The analysis of a real arbiter: jobs on simulated GPUs are judged as people would, and over HTTP it says why."""

import asyncio
import contextlib
import json
import re
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.harness.cli import PROGRAM, Cli
from e2e.harness.client import Client
from e2e.harness.waiting import eventually
from gpuarbiter.sim import SimulatedMemory
from support.messages import holder
from support.process import Arbiterd, environment

PAGE = Path(__file__).parents[2] / "docs" / "analysis.md"
# It runs when it is asked to.
_SETTINGS = (
    "gpus=sim:6x16GiB",
    "sampler={interval: 20ms, fast_interval: 20ms}",
    "analysis={interval: 1h, time_window: 2s, step: 200ms}",
)
_EXPECTED = {
    "gpu:0": ("", "idle", "idle", "Nobody is known to hold it, and it has done no work"),
    "gpu:1": ("team-a", "low", "suspicious", "8.0 GiB of memory have been held"),
    "gpu:2": ("", "low", "active", "It works steadily but little: 15% on average"),
    "gpu:3": ("", "normal", "active", "It works steadily: 50% on average"),
    "gpu:4": ("", "high", "active", "It works steadily: 100% on average"),
    "gpu:5": ("", "low", "active", "It works in bursts"),
}
# (memory, utilization) of the steady jobs.
_JOBS = {"1": ("8GiB", 0.0), "2": ("1GiB", 0.15), "3": ("8GiB", 0.5), "4": ("16GiB", 1.0)}


def get(arbiter: Arbiterd, path: str) -> Any:
    with urllib.request.urlopen(f"http://{arbiter.http}{path}", timeout=20) as answer:
        return json.load(answer)


def update(arbiter: Arbiterd, patch: dict[str, Any], token: str) -> tuple[int, Any]:
    headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"http://{arbiter.http}/config/update", json.dumps(patch).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@contextlib.contextmanager
def bursts(gpu: str, folder: Path) -> Iterator[None]:
    """A job that works for a twentieth of a second, and then waits for six times as long."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            with SimulatedMemory("1GiB", gpu, utilization_ratio=1.0, folder=folder):
                over.wait(0.05)
            over.wait(0.3)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        over.set()
        worker.join()


@pytest.mark.tool("curl")
async def test_jobs_on_simulated_gpus_are_judged_with_a_reason(
    arbiterd: Callable[..., Arbiterd],
    connect: Callable[[Arbiterd], Client],
    shell: Callable[[Arbiterd], Cli],
    folder: Path,
):
    arbiter = arbiterd(*_SETTINGS)
    client = connect(arbiter)
    held = client.acquire("ASR", holder("asr", namespace="team-a", pod="asr-0"), candidates=["gpu:1"])
    await held.granted()
    with contextlib.ExitStack() as jobs:
        for gpu, (memory, ratio) in _JOBS.items():
            jobs.enter_context(SimulatedMemory(memory, gpu, utilization_ratio=ratio, folder=folder / "sim"))
        jobs.enter_context(bursts("5", folder / "sim"))

        async def judged() -> bool:
            assert (await asyncio.to_thread(get, arbiter, "/analyze"))["status"] == "ok"
            results = {each["gpu_id"]: each for each in await asyncio.to_thread(get, arbiter, "/results")}
            return results.keys() == _EXPECTED.keys() and all(
                (each["namespace"], each["status"], each["ai_analysis"]["status"]) == expected[:3]
                and each["ai_analysis"]["reason"].startswith(expected[3])
                for each, expected in ((results[gpu], expected) for gpu, expected in _EXPECTED.items())
            )

        await eventually(judged, "every job to be judged by a whole window")
        low = await asyncio.to_thread(get, arbiter, "/results/low")
    assert {each["gpu_id"] for each in low["gpus"]} == {"gpu:0", "gpu:1", "gpu:2", "gpu:5"}
    assert (await asyncio.to_thread(get, arbiter, "/results/stats"))["by_namespace"]["team-a"]["low_util_count"] == 1
    config = await asyncio.to_thread(get, arbiter, "/config")
    assert (config["interval"], config["time_window"]) == ("1h", "2s")
    table = await asyncio.to_thread(shell(arbiter), "analyze", "--url", f"http://{arbiter.http}")
    assert table.returncode == 0, table.stderr
    assert re.search(r"^gpu:\d +team-a +asr-0 +0% +8192 MiB ", table.stdout, re.MULTILINE)
    held.cancel()
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    script = "".join(block for block in blocks if "curl" in block).replace("127.0.0.1:9402", arbiter.http)
    env = environment(folder)
    env["PATH"] = f"{PROGRAM.parent}:{env['PATH']}"
    said = await asyncio.to_thread(
        subprocess.run, ["bash", "-ec", script], env=env, capture_output=True, text=True, check=True
    )
    assert '"status":"ok"' in said.stdout
    assert '"count":' in said.stdout
    assert '"restart_needed":[]' in said.stdout
    await asyncio.to_thread(arbiter.wait_for, r"1 of 6 GPUs are held and score below 20: gpu:1 \(team-a/asr-0")


async def test_settings_change_while_it_runs_as_a_whole_or_not_at_all(arbiterd: Callable[..., Arbiterd]):
    arbiter = arbiterd("analysis={interval: 1h, prometheus: {url: 'http://user:secret@127.0.0.1:9'}}")

    def everything() -> None:
        before = get(arbiter, "/config")
        assert before["prometheus"]["url"] == "http://…@127.0.0.1:9"
        bad = {"interval": "60s", "thresholds": {"low": 5}, "\ud800": None}
        status, answer = update(arbiter, bad, arbiter.admin_token)
        assert (status, get(arbiter, "/config")) == (422, before)
        status, answer = update(
            arbiter, {"interval": "60s", "thresholds": {"low": 30}, "step": "10s"}, arbiter.admin_token
        )
        assert (status, answer["restart_needed"]) == (200, ["analysis.step"])
        assert answer["config"] == get(arbiter, "/config")
        assert answer["config"]["thresholds"] == {"idle": 10, "low": 30, "high": 70}
        assert get(arbiter, "/")["config"] == {
            "prometheus_url": "http://…@127.0.0.1:9",
            "threshold": 30,
            "interval": 60,
        }
        # Nobody listens there.
        with contextlib.suppress(urllib.error.HTTPError):
            get(arbiter, "/analyze")
        health = get(arbiter, "/health")
        assert (health["status"], health["interval"]) == ("failing", 60)
        assert "DCGM_FI_DEV_" in health["error"]

    await asyncio.to_thread(everything)
