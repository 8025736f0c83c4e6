"""A real Prometheus takes what the arbiter shows: every family with its type, and nothing that it has to refuse."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.harness.prometheus import Prometheus, scrape
from e2e.harness.waiting import eventually
from gpuarbiter_server.telemetry.catalogue import CATALOGUE, PREFIX
from support.process import Arbiterd


@pytest.mark.tool("prometheus")
async def test_prometheus_scrapes_the_arbiter(arbiter: Arbiterd, tool: Callable[[str], str], tmp_path: Path):
    with Prometheus(tool("prometheus"), scrape("gpu-arbiter", arbiter.http), tmp_path) as prometheus:

        async def scraped() -> bool:
            return await asyncio.to_thread(prometheus.value, "up") == 1

        await eventually(scraped, "the first scrape")
        assert prometheus.problems() == []
        known = {metric.full_name for metric in CATALOGUE}
        names = {each["__name__"] for each in prometheus.series(f'{{__name__=~"{PREFIX}.+"}}')}
        assert {name for name in names if name.rpartition("_")[0] not in known} <= known
        assert {"gpu_arbiter_acquire_total", "gpu_arbiter_leases", "gpu_arbiter_gpu_info"} <= names
        assert prometheus.value('gpu_arbiter_gpu_up{gpu="gpu:0"}') == 1
