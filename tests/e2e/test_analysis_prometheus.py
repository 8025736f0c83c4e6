"""24 GPUs in five namespaces behind a real Prometheus: scores as in a table made by hand, until it dies."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2e.harness.dcgm import DcgmExporter, DcgmGpu
from e2e.harness.prometheus import Prometheus, scrape
from e2e.harness.receiver import Receiver
from e2e.harness.waiting import eventually
from support.process import Arbiterd

GIB = 1024
NAMESPACES = ("asr", "nmt", "tts", "train", "dev")
# Utilization and memory traffic in percent, memory used of 80 GiB, watts, limit; the score and its status by hand:
# 0.5 × utilization + 0.2 × traffic + 0.2 × memory share + 0.1 × power share.
JOBS: tuple[tuple[float, float, int, float, float | None, float, str], ...] = (
    (0, 0, 0, 40, 400, 1.0, "idle"),
    (15, 5, 8, 100, 400, 13.0, "low"),
    (50, 30, 40, 200, 400, 46.0, "normal"),
    (95, 60, 72, 360, 400, 86.5, "high"),
    (0, 0, 60, 60, 400, 16.5, "low"),
    # Without a limit: (40 + 8 + 5) / 0.9.
    (80, 40, 20, 300, None, 58.89, "normal"),
)


def gpu(number: int) -> DcgmGpu:
    utilization, traffic, used, watts, limit, *_ = JOBS[number % 6]
    labels = {
        "gpu": str(number % 8),
        "UUID": f"GPU-{number:02}",
        "Hostname": f"node-{number // 8}",
        "modelName": "NVIDIA H100 80GB HBM3",
        "namespace": NAMESPACES[number % 5],
        "pod": f"pod-{number}",
    }
    figures = {
        "GPU_UTIL": utilization,
        "MEM_COPY_UTIL": traffic,
        "FB_USED": used * GIB,
        "FB_FREE": (80 - used) * GIB,
        "POWER_USAGE": watts,
        "SM_CLOCK": 1980,
    }
    return DcgmGpu(labels, figures if limit is None else figures | {"POWER_MGMT_LIMIT": limit})


# That one has no pod, and the selector leaves it out.
NOBODYS = DcgmGpu({"gpu": "0", "UUID": "GPU-free", "Hostname": "node-9", "pod": ""}, {"GPU_UTIL": 0})
# Four GPUs of each job. Low are those of jobs 0, 1 and 4; a namespace has GPUs n, n + 5, n + 10, …, with these scores.
BY_NAMESPACE = {
    "asr": ([1.0, 58.89, 16.5, 86.5, 46.0], 2),  # 0, 5, 10, 15, 20
    "nmt": ([13.0, 1.0, 58.89, 16.5, 86.5], 3),  # 1, 6, 11, 16, 21
    "tts": ([46.0, 13.0, 1.0, 58.89, 16.5], 3),  # 2, 7, 12, 17, 22
    "train": ([86.5, 46.0, 13.0, 1.0, 58.89], 2),  # 3, 8, 13, 18, 23
    "dev": ([16.5, 86.5, 46.0, 13.0], 2),  # 4, 9, 14, 19
}


def get(arbiter: Arbiterd, path: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"http://{arbiter.http}{path}", timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.tool("prometheus")
async def test_gpus_behind_a_prometheus_score_as_by_hand_and_are_stale_when_it_dies(
    arbiterd: Callable[..., Arbiterd], tool: Callable[[str], str], tmp_path: Path
):
    with (
        DcgmExporter([*map(gpu, range(24)), NOBODYS]) as exporter,
        # Exporters name the pods that they are asked about, not their own.
        Prometheus(tool("prometheus"), honoring(exporter.address), tmp_path) as prometheus,
        Receiver() as control,
    ):

        async def scraped() -> bool:
            found = await asyncio.to_thread(prometheus.query, 'DCGM_FI_DEV_SM_CLOCK{pod!=""} offset 5s')
            return len(found) == 24

        # Who has come during the window is not to blame for it.
        await eventually(scraped, "a whole window")
        arbiter = arbiterd(
            f"analysis={{interval: 1h, time_window: 5s, step: 1s, prometheus: {{url: '{prometheus.url}/'}}}}",
            f"analysis.control={{enabled: true, url: 'http://{control.address}/'}}",
            "analysis.actions.after_runs=1",
        )
        assert (await asyncio.to_thread(get, arbiter, "/analyze"))[1]["message"].startswith("24 GPUs in ")
        _, results = await asyncio.to_thread(get, arbiter, "/results")
        check(results)
        _, stats = await asyncio.to_thread(get, arbiter, "/results/stats")
        assert stats["by_status"] == {"idle": 4, "low": 8, "normal": 8, "high": 4}
        assert (stats["total_gpus"], stats["low_utilization_count"], stats["idle_count"]) == (24, 12, 4)
        for name, (scores, low) in BY_NAMESPACE.items():
            expected = {"count": len(scores), "avg_score": pytest.approx(sum(scores) / len(scores), abs=0.01)}
            assert stats["by_namespace"][name] == expected | {"low_util_count": low}
        await eventually(lambda: all_told(control), "the webhook to be told of the pods that waste GPUs")
        _, health = await asyncio.to_thread(get, arbiter, "/health")
        assert (health["status"], health["source"], health["prometheus_connected"]) == ("healthy", "Prometheus", True)
        prometheus.close()
        status, answer = await asyncio.to_thread(get, arbiter, "/analyze")
        assert (status, answer["status"]) == (503, "failed")
        _, health = await asyncio.to_thread(get, arbiter, "/health")
        assert (health["status"], health["prometheus_connected"]) == ("stale", False)
        assert (await asyncio.to_thread(get, arbiter, "/results"))[1] == results


async def all_told(control: Receiver) -> bool:
    """Idle are those of job 0, suspicious those of 4; the low ones of 1 work, and are left alone."""
    told = sorted((each.body["gpu_id"], each.body["pod"], each.body["lease"]) for each in control.posted)
    return told == [(f"GPU-{number:02}", f"pod-{number}", "") for number in range(24) if number % 6 in (0, 4)]


def check(results: list[dict[str, Any]]) -> None:
    assert [each["gpu_id"] for each in results] == [f"GPU-{number:02}" for number in range(24)]
    for number, each in enumerate(results):
        utilization, traffic, used, watts, limit, score, status = JOBS[number % 6]
        assert (each["score"], each["status"]) == (score, status)
        assert (each["gpu_util"], each["mem_copy"], each["power_usage"]) == (utilization, traffic, watts)
        assert (each["mem_used_mb"], each["sm_clock"]) == (used * GIB, 1980)
        assert (each["namespace"], each["pod"]) == (NAMESPACES[number % 5], f"pod-{number}")
        assert ("power or its limit" in each["ai_analysis"]["reason"]) == (limit is None)
    judged = [each["ai_analysis"]["status"] for each in results[:6]]
    assert judged == ["idle", "active", "active", "active", "suspicious", "active"]


def honoring(address: str) -> dict[str, Any]:
    config = scrape("dcgm", address, "200ms")
    config["scrape_configs"][0]["honor_labels"] = True
    return config
