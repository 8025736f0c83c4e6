"""What those who watch are told: all at first, then what is new, and nothing while nothing is."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from gpuarbiter_server.analysis.model import GpuWindow, Judgement, Result, Verdict
from gpuarbiter_server.analysis.service import Analysis, Settings
from gpuarbiter_server.core.events import ReadingTaken
from gpuarbiter_server.core.model import EventType, GpuReading
from gpuarbiter_server.web.console import feed as module
from gpuarbiter_server.web.console import trail
from gpuarbiter_server.web.console.feed import CrowdedError
from server.analysis.windows import window
from support.messages import GIB, acquire, release
from support.server import serving

from .consoles import Watcher, feed_of

PARTS = {"arbiter", "gpus", "leases", "queue", "analysis"}


async def test_at_first_all_there_is_then_only_what_has_changed():
    async with serving(gpus=2) as arbiter:
        with Watcher(feed_of(arbiter)) as watcher:
            await watcher.until(lambda seen: seen.said)
            assert watcher.said[0]["first"]
            assert watcher.said[0].keys() >= PARTS
            assert [gpu["key"] for gpu in watcher.seen["gpus"]] == ["gpu:0", "gpu:1"]
            assert watcher.seen["leases"] == {"total": 0, "rows": []}
            _, lease = await arbiter.granted(acquire(client="asr-0", max_wait=5))
            await watcher.until(lambda seen: seen.seen["leases"]["total"])
            assert not watcher.said[-1]["first"]
            assert watcher.said[-1].keys().isdisjoint({"arbiter", "queue", "analysis"})
            (row,) = watcher.seen["leases"]["rows"]
            assert (row["id"], row["client"], row["gpus"][0]["key"]) == (lease.lease_id, "asr-0", "gpu:0")
            await arbiter.stub.Release(release(lease))
            await watcher.until(lambda seen: seen.seen["leases"]["total"] == 0)


async def test_who_waits_is_shown_with_the_reason():
    async with serving() as arbiter:
        await arbiter.granted(acquire(client="first"))
        call, _ = await arbiter.queued(acquire(client="second", max_wait=60))
        with Watcher(feed_of(arbiter)) as watcher:
            await watcher.until(lambda seen: seen.said)
            (ticket,) = watcher.seen["queue"]["rows"]
            assert (ticket["client"], ticket["reason"], ticket["position"]) == ("second", "GPU_BUSY", 1)
            assert ticket["candidates"] == ["gpu:0"]
            assert ticket["until"] - ticket["since"] == pytest.approx(60, abs=0.1)
        call.cancel()


async def test_a_judgement_by_a_model_is_shown_as_such():
    class Two:
        name = "two"

        async def windows(self) -> list[GpuWindow]:
            return [window([0.0] * 20), window([0.9] * 20)]

        async def close(self) -> None: ...

    async def advise(results: tuple[Result, ...], *, fresh: bool, seconds: float) -> tuple[Result, ...]:
        assert (fresh, seconds > 0) == (False, True)
        return (replace(results[0], opinion=Judgement(Verdict.IDLE, 0.8, "<b>", "", 1.0)), results[1])

    async with serving() as arbiter:
        analysis = Analysis(
            Two(), Settings(), history=1, first=1e9, clock=arbiter.clock, wall=arbiter.clock, advise=advise
        )
        await analysis.run()
        with Watcher(feed_of(arbiter, analysis)) as watcher:
            await watcher.until(lambda seen: seen.said)
            rows = watcher.seen["analysis"]["rows"]
            assert [(row["by_model"], row["verdict"], row["confidence"]) for row in rows] == [
                (True, "idle", 0.8),
                (False, "active", 0.95),
            ]


async def test_while_nothing_changes_there_are_heartbeats_and_no_news(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "HEARTBEAT", 0.02)
    async with serving() as arbiter:
        with Watcher(feed_of(arbiter)) as watcher:
            await watcher.until(lambda seen: seen.said)
            told = len(watcher.said)
            await watcher.until(lambda seen: seen.beats >= 3)
            # The first look may come with what the next one adds; what is the same is not told again.
            assert all(news.keys().isdisjoint(PARTS) for news in watcher.said[told:])


async def test_all_who_watch_are_told_the_same_and_it_is_made_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_INTERVAL", 60.0)
    async with serving() as arbiter:
        feed = feed_of(arbiter)
        with Watcher(feed) as one, Watcher(feed) as other:
            await one.until(lambda seen: seen.said)
            await other.until(lambda seen: seen.said)
            # But for the moment at which each was told.
            assert one.said[0] | {"now": 0} == other.said[0] | {"now": 0}
            assert feed._since(0) is feed._since(0)


async def test_who_reads_slowly_is_told_the_newest_and_no_backlog(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_INTERVAL", 0.001)
    async with serving() as arbiter:
        feed = feed_of(arbiter)
        with Watcher(feed) as slow, Watcher(feed) as quick:
            await slow.until(lambda seen: seen.said)
            for number in range(5):
                _, lease = await arbiter.granted(acquire(client=f"c{number}"))
                await quick.until(lambda seen, lease=lease: lease.lease_id in str(seen.seen["leases"]))
                await arbiter.stub.Release(release(lease))
                await quick.until(lambda seen: not seen.seen["leases"]["total"])
            assert len(quick.said) > 5
            await slow.next()
            assert len(slow.said) == 2
            assert slow.seen["leases"]["total"] == 0
            # Of what is kept nothing is missing.
            await slow.until(lambda seen: len(seen.events) == len(quick.events))
            assert [event["n"] for event in slow.events] == [event["n"] for event in quick.events]


async def test_there_is_room_for_so_many_and_the_next_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST_WATCHERS", 2)
    async with serving() as arbiter:
        feed = feed_of(arbiter)
        with Watcher(feed), Watcher(feed), pytest.raises(CrowdedError), feed.place():
            pass
        with feed.place():
            pass


async def test_nothing_is_rendered_while_nobody_watches():
    async with serving() as arbiter:
        feed = feed_of(arbiter)
        assert feed._rendering is None
        with Watcher(feed) as watcher:
            await watcher.until(lambda seen: seen.said)
            rendering = feed._rendering
            assert rendering is not None
        await asyncio.wait([rendering], timeout=10)
        assert rendering.cancelled()
        assert feed._rendering is None


async def test_who_comes_after_a_time_without_anybody_is_not_shown_what_was_then():
    async with serving() as arbiter:
        feed = feed_of(arbiter)
        with Watcher(feed) as watcher:
            await watcher.until(lambda seen: seen.said)
        await arbiter.granted(acquire(client="meanwhile"))
        with Watcher(feed) as watcher:
            await watcher.until(lambda seen: seen.said)
            assert [row["client"] for row in watcher.said[0]["leases"]["rows"]] == ["meanwhile"]


async def test_who_comes_late_sees_what_was_before(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_EVENTS_AT_ONCE", 1)
    async with serving() as arbiter:
        _, lease = await arbiter.granted(acquire(client="early", task_type="ASR"))
        await arbiter.stub.Release(release(lease))
        with Watcher(feed_of(arbiter)) as watcher:
            await watcher.until(lambda seen: seen.spans.get(lease.lease_id, {}).get("end"))
            span = watcher.spans[lease.lease_id]
            assert (span["task"], span["client"], span["gpus"], span["how"]) == ("ASR", "early", ["gpu:0"], "RELEASED")
            assert [event["type"] for event in watcher.events] == ["GRANTED", "ENDED"]


async def test_what_fails_once_is_logged_and_looked_at_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(module, "_INTERVAL", 0.001)
    monkeypatch.setattr(module, "HEARTBEAT", 0.01)
    async with serving() as arbiter:
        feed = feed_of(arbiter)
        compare: Any = trail.Trail.compare
        failures = 0

        def at_first(*arguments: Any) -> None:
            nonlocal failures
            if failures < 3:
                failures += 1
                raise ValueError("a defect")
            compare(*arguments)

        monkeypatch.setattr(trail.Trail, "compare", at_first)
        with Watcher(feed) as watcher:
            await watcher.until(lambda seen: seen.said)
        assert caplog.text.count("the console cannot be rendered") == 1


async def test_readings_are_noted_whether_somebody_watches_or_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "READINGS_INTERVAL", 0.001)
    async with serving(monitored=True) as arbiter:
        reading = GpuReading(arbiter.clock(), memory_used_bytes=3 * GIB, utilization_ratio=0.5)
        arbiter.runtime.submit(ReadingTaken("gpu:0", reading))
        feed = feed_of(arbiter)
        taking = asyncio.ensure_future(feed.take_readings())
        with Watcher(feed) as watcher:
            await watcher.until(lambda seen: [50, 3072, 0, 3072] in [row[1] for row in seen.readings])
        taking.cancel()


async def test_the_history_may_be_slow_what_is_now_is_shown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.01)
    async with serving() as arbiter:

        async def never(*_: Any, **__: Any) -> Any:
            await asyncio.Event().wait()
            yield

        monkeypatch.setattr(arbiter.history, "after", never)
        with Watcher(feed_of(arbiter)) as watcher:
            await watcher.until(lambda seen: seen.said)
            assert watcher.seen["gpus"][0]["key"] == "gpu:0"


async def test_renewals_are_no_news():
    assert EventType.RENEWED in trail._NO_NEWS
