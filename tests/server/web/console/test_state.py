"""The parts of the state: rows up to a number, moments that stay the same, and what the analysis says."""

import json
from typing import Any

import pytest

from gpuarbiter_server.analysis.own import OwnSamples
from gpuarbiter_server.analysis.service import Analysis, Settings
from gpuarbiter_server.core.events import GpuFailed, ReadingTaken
from gpuarbiter_server.core.model import GpuReading
from gpuarbiter_server.core.views import GpuView
from gpuarbiter_server.web.console import readings as readings_module
from gpuarbiter_server.web.console import state as module
from gpuarbiter_server.web.console.readings import Readings
from gpuarbiter_server.web.console.state import WallTime
from support.messages import acquire
from support.server import InProcess, gpu_specs, serving

from .consoles import feed_of


def part(arbiter: InProcess, name: str, analysis: Analysis | None = None) -> Any:
    return json.loads("".join(feed_of(arbiter, analysis)._state.parts()[name]))


async def test_rows_have_a_number_and_the_rest_is_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST_LEASES", 2)
    monkeypatch.setattr(module, "MOST_TICKETS", 15)
    async with serving("queue_limit=100", gpus=3) as arbiter:
        calls = [(await arbiter.granted(acquire(client=f"h{number}")))[0] for number in range(3)]
        calls += [(await arbiter.queued(acquire(client=f"w{number}", max_wait=60)))[0] for number in range(20)]
        leases, queue = part(arbiter, "leases"), part(arbiter, "queue")
        assert (leases["total"], len(leases["rows"])) == (3, 2)
        assert (queue["total"], [row["position"] for row in queue["rows"]]) == (20, list(range(1, 16)))
        for call in calls:
            call.cancel()


async def test_lists_that_are_made_in_pieces_are_whole_however_many_there_are():
    async with serving("queue_limit=100") as arbiter:
        assert part(arbiter, "queue") == {"total": 0, "rows": []}
        calls = [(await arbiter.granted(acquire()))[0]]
        for number in range(2 * module._AT_ONCE):
            calls.append((await arbiter.queued(acquire(client=f"w{number}", max_wait=60)))[0])
            assert len(part(arbiter, "queue")["rows"]) == number + 1
        for call in calls:
            call.cancel()


def test_a_moment_is_the_same_until_the_clock_of_the_machine_jumps():
    clock, wall = [10.0], [1000.0]
    moment = WallTime(lambda: clock[0], lambda: wall[0])
    wall[0] += 0.3
    moment.adjust()
    assert moment(20.0) == 1010.0
    wall[0] += 3600
    moment.adjust()
    assert moment(20.0) == 4610.3


async def test_what_the_analysis_says_is_shown_or_that_there_is_none():
    async with serving() as arbiter:
        assert part(arbiter, "analysis") is None
        now = [100.0]
        source = OwnSamples(gpu_specs(1), window=10, step=1, clock=lambda: now[0], hostname="node-1", holders=dict)
        analysis = Analysis(source, Settings(), history=2, first=1, clock=lambda: now[0], wall=lambda: 5000.0)
        before = part(arbiter, "analysis", analysis)
        assert (before["at"], before["rows"], before["stale"], before["fault"]) == (None, [], False, "")
        source.note("gpu:0", GpuReading(99.5, utilization_ratio=0.5, memory_used_bytes=2**30))
        await analysis.run()
        after = part(arbiter, "analysis", analysis)
        assert (after["at"], after["thresholds"]["low"]) == (5000.0, 20.0)
        (row,) = after["rows"]
        assert (row["gpu"], row["verdict"], row["utilization"]) == ("gpu:0", "active", 0.5)
        assert row["reason"]
        await analysis.close()


async def test_readings_have_a_number_too():
    async with serving() as arbiter:
        gpus: tuple[GpuView, ...] = arbiter.runtime.census().gpus()
        readings = Readings()
        for number in range(1, readings_module._POINTS + 11):
            readings.note(number, float(number), gpus)
        kept = [json.loads(text) for text in readings.after(0)]
        assert len(kept) == readings_module._POINTS
        # What is not read is not known.
        assert kept[0] == [11.0, [None, None, 0, 0]]
        assert [json.loads(text)[0] for text in readings.after(kept[-3][0])] == [kept[-2][0], kept[-1][0]]
        assert list(readings.after(kept[-1][0])) == []


async def test_a_clock_that_is_put_back_takes_back_the_readings_of_after_it():
    async with serving() as arbiter:
        readings = Readings()
        for number, at in enumerate((100.0, 200.0, 202.0, 150.0, 152.0), 1):
            readings.note(number, at, arbiter.runtime.census().gpus())
        assert [json.loads(text)[0] for text in readings.after(0)] == [100.0, 150.0, 152.0]
        assert [json.loads(text)[0] for text in readings.after(3)] == [150.0, 152.0]


async def test_of_a_gpu_that_is_lost_only_what_is_still_so_is_shown():
    async with serving(monitored=True) as arbiter:
        arbiter.runtime.submit(ReadingTaken("gpu:0", GpuReading(arbiter.clock(), utilization_ratio=0.7)))
        await arbiter.snapshot()
        (gpu,) = part(arbiter, "gpus")
        assert (gpu["health"], gpu["utilization"], gpu["why"]) == ("OK", 0.7, "")
        arbiter.runtime.submit(GpuFailed("gpu:0", "it fell off the bus"))
        await arbiter.snapshot()
        (gpu,) = part(arbiter, "gpus")
        assert (gpu["health"], gpu["utilization"], gpu["why"]) == ("LOST", None, "it fell off the bus")
