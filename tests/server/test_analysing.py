"""Readings in, judgements out: the analysis as the arbiter has it."""

import asyncio
import contextlib
from dataclasses import replace

from fakes.polling import async_until
from gpuarbiter_server.app.analysing import Analysing
from gpuarbiter_server.app.observing import known
from gpuarbiter_server.core.events import DriverChanged, ReadingTaken
from gpuarbiter_server.core.model import GpuReading
from gpuarbiter_server.gpu.sampler import SamplerEvent
from gpuarbiter_server.runtime.clock import monotonic, wall
from gpuarbiter_server.telemetry.gauges import Gauges
from gpuarbiter_server.telemetry.sources import Sources
from support.messages import acquire, holder
from support.server import GIB, InProcess, configured, gpu_specs, serving

BUSY = GpuReading(0.0, 8 * GIB, 16 * GIB, 1.0, 0.5, 300.0, 300.0)


def lines(arbiter: InProcess, analysing: Analysing) -> list[str]:
    """What a scrape shows of it."""
    gauges = Gauges(known(configured(), []), Sources("1", arbiter.runtime.census, wall, analysed=analysing.shown))
    return [
        line.strip()
        for family in gauges.families()
        for line in family.lines(exemplars=False)
        if "utilization_s" in line or "analysis_" in line
    ]


async def test_what_the_sampler_reads_is_scored_with_who_holds_it():
    async with serving() as arbiter, contextlib.AsyncExitStack() as stack:
        specs = gpu_specs()
        analysing = Analysing(
            configured("analysis={step: 1s, interval: 10ms, weights: {power: 0, memory: 0}}"),
            specs,
            arbiter.runtime.census,
            arbiter.metrics,
            arbiter.runtime.ask,
        )
        assert lines(arbiter, analysing) == []
        delivered: list[SamplerEvent] = []
        deliver = analysing.listen(delivered.append)
        call = arbiter.stub.Acquire(acquire(holder=holder(namespace="team-a", pod="asr-0")))
        await call.read()
        events = [DriverChanged(up=True), ReadingTaken("gpu:0", replace(BUSY, time=monotonic()))]
        for event in events:
            deliver(event)
        assert delivered == events
        analysing.start(stack)
        await async_until(lambda: analysing.service is not None and analysing.service.latest is not None)
        gpu = 'gpu="gpu:0",namespace="team-a",pod="asr-0"'
        # (50 × 1 + 20 × 0.5) / 0.7
        assert lines(arbiter, analysing)[:3] == [
            f"gpu_arbiter_gpu_utilization_score{{{gpu}}} 85.71428571428572",
            f'gpu_arbiter_gpu_utilization_status{{{gpu},status="high"}} 1',
            f'gpu_arbiter_analysis_confidence_ratio{{{gpu},judgement="active"}} 0.48',
        ]
        analysing.configure(configured("analysis={interval: 10ms, thresholds: {high: 99}}"))
        await async_until(lambda: any('status="normal"' in line for line in lines(arbiter, analysing)))
        call.cancel()


async def test_where_it_is_off_nothing_runs_and_readings_go_their_way():
    async with serving() as arbiter, contextlib.AsyncExitStack() as stack:
        analysing = Analysing(
            configured("analysis.enabled=false"),
            gpu_specs(),
            arbiter.runtime.census,
            arbiter.metrics,
            arbiter.runtime.ask,
        )
        delivered: list[SamplerEvent] = []
        assert analysing.listen(delivered.append) == delivered.append
        tasks = len(asyncio.all_tasks())
        analysing.start(stack)
        analysing.configure(configured())
        assert (len(asyncio.all_tasks()), list(analysing.shown())) == (tasks, [])
