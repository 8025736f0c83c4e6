"""What is asked of a history, whether it is in memory or in a file."""

import asyncio
import gc
import os
from pathlib import Path

import pytest

from fakes.polling import async_until
from gpuarbiter_server.store import history as module
from gpuarbiter_server.store.history import History

from .histories import Follower, Wall, event, events, history, numbers, observe, opened


@pytest.fixture(params=["memory", "file"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "history.db" if request.param == "file" else None


async def filled(kept: History, count: int, wall: Wall) -> History:
    """Events 1 to count, a second apart from 100 on."""
    for number in range(1, count + 1):
        kept.observe(event(number))
        wall.now += 1
    return kept


async def test_events_are_numbered_without_gaps_from_one(path: Path | None):
    wall = Wall()
    async with opened(path, wall=wall) as kept:
        await filled(kept, 3, wall)
        assert [(one.sequence, one.time, one.recorded) for one in await events(kept)] == [
            (1, 100.0, event(1)),
            (2, 101.0, event(2)),
            (3, 102.0, event(3)),
        ]


async def test_only_the_newest_are_kept(path: Path | None):
    async with opened(path, max_events=4) as kept:
        observe(kept, range(10))
        assert await numbers(kept) == [7, 8, 9, 10]


async def test_nothing_is_kept_where_nothing_may_be(path: Path | None, tmp_path: Path):
    async with opened(path, max_events=0) as kept:
        observe(kept, range(3))
        assert await numbers(kept) == []
        assert await numbers(kept, 2) == []
    assert await asyncio.to_thread(os.listdir, tmp_path) == []


async def test_what_is_too_old_is_not_told(path: Path | None):
    wall = Wall()
    async with opened(path, wall=wall, max_age=10.0) as kept:
        observe(kept, [1])
        wall.now += 8
        observe(kept, [2])
        assert await numbers(kept) == [1, 2]
        wall.now += 8
        observe(kept, [3])
        assert await numbers(kept) == [2, 3]


async def test_the_answer_begins_after_a_sequence_or_with_the_oldest_there_is(path: Path | None):
    async with opened(path, max_events=4) as kept:
        assert await numbers(kept, 2**64 - 1) == []
        observe(kept, range(10))
        for after, expected in ((0, [7, 8, 9, 10]), (6, [7, 8, 9, 10]), (8, [9, 10]), (10, []), (11, [])):
            assert await numbers(kept, after) == expected, after
        assert await numbers(kept, 2**64 - 1) == []


async def test_the_answer_begins_at_a_time(path: Path | None):
    wall = Wall()
    async with opened(path, wall=wall) as kept:
        await filled(kept, 5, wall)
        assert await numbers(kept, since=102.0) == [3, 4, 5]
        assert await numbers(kept, 4, since=102.0) == [5]
        assert await numbers(kept, since=999.0) == []


async def test_the_answer_ends_with_its_limit(path: Path | None):
    wall = Wall()
    async with opened(path, wall=wall) as kept:
        await filled(kept, 200, wall)
        for limit in (1, 50, 51, 199):
            assert await numbers(kept, limit=limit) == list(range(1, limit + 1))
        assert await numbers(kept, 190, limit=500) == list(range(191, 201))
        assert await numbers(kept, 10, since=250.0, limit=2) == [151, 152]


async def test_the_answer_has_what_was_there_when_it_was_asked_for(path: Path | None):
    async with opened(path) as kept:
        observe(kept, range(120))
        reader = kept.after(0)
        seen = [(await anext(reader)).sequence]
        observe(kept, range(500))
        seen += [one.sequence async for one in reader]
        assert seen == list(range(1, 121))


async def test_a_follower_gets_what_is_kept_and_then_what_comes(path: Path | None):
    async with opened(path) as kept:
        observe(kept, range(3))
        first, second = Follower(kept, 1), Follower(kept)
        await async_until(lambda: (first.numbers, second.numbers) == ([2, 3], [1, 2, 3]))
        observe(kept, range(2))
        await async_until(lambda: (first.numbers, second.numbers) == ([2, 3, 4, 5], [1, 2, 3, 4, 5]))
        observe(kept, range(1))
        await async_until(lambda: first.numbers[-1] == second.numbers[-1] == 6)
        await first.stop()
        await second.stop()


async def test_a_follower_of_a_time_to_come_waits_for_it(path: Path | None):
    wall = Wall()
    async with opened(path, wall=wall) as kept:
        follower, other = Follower(kept, since=200.0), Follower(kept)
        observe(kept, [1])
        await async_until(lambda: other.numbers == [1])
        wall.now = 200.0
        observe(kept, [2])
        await async_until(lambda: follower.numbers == [2])
        await follower.stop()
        await other.stop()


async def test_a_follower_with_a_limit_ends(path: Path | None):
    async with opened(path) as kept:
        observe(kept, range(2))
        follower = Follower(kept, limit=3)
        await async_until(lambda: follower.numbers == [1, 2])
        observe(kept, range(2))
        await follower.task
        assert follower.numbers == [1, 2, 3]


async def test_a_follower_that_falls_behind_goes_on_with_the_oldest_there_is(path: Path | None):
    async with opened(path, max_events=3) as kept:
        observe(kept, [1])
        reader = kept.follow(0)
        assert (await anext(reader)).sequence == 1
        observe(kept, range(10))
        assert await numbers(kept) == [9, 10, 11]
        assert [(await anext(reader)).sequence for _ in range(3)] == [9, 10, 11]
        await reader.aclose()


async def test_a_follower_that_names_a_number_to_come_waits_for_it(path: Path | None):
    async with opened(path) as kept:
        early, other = Follower(kept, 3), Follower(kept)
        observe(kept, range(3))
        await async_until(lambda: other.numbers == [1, 2, 3])
        assert early.numbers == []
        observe(kept, range(1))
        await async_until(lambda: early.numbers == [4])
        await early.stop()
        await other.stop()


async def test_where_nothing_is_kept_a_follower_waits_all_the_same(path: Path | None):
    async with opened(path, max_events=0) as kept:
        follower = Follower(kept)
        observe(kept, range(3))
        await async_until(lambda: kept._more._waiters, "for it to have looked")
        assert follower.numbers == []
        await follower.stop()


async def test_a_follower_that_is_cancelled_leaves_nothing_behind(path: Path | None):
    async with opened(path) as kept:
        observe(kept, range(10))
        followers = [Follower(kept) for _ in range(20)]
        for follower in followers[:5]:
            await follower.stop()  # before it has had an answer
        await async_until(lambda: len(followers[-1].seen) == 10)
        for follower in followers:
            await follower.stop()
        assert not kept._more._waiters
        gc.collect()
        assert not [task for task in asyncio.all_tasks() if "_read" in repr(task)]
        observe(kept, range(1))
        assert len(await events(kept)) == 11


async def test_a_slow_follower_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_IN_MEMORY", 20)
    async with opened(tmp_path / "history.db") as kept:
        observe(kept, range(10))
        slow, quick = kept.follow(0), Follower(kept)
        seen = [(await anext(slow)).sequence]
        for _ in range(10):
            observe(kept, range(100))
            await async_until(lambda: len(quick.seen) % 100 == 10)
        await async_until(lambda: len(quick.seen) == 1010)
        # What it reads later is no longer in memory: it comes from the file, and goes over into what is.
        seen += [(await anext(slow)).sequence for _ in range(1009)]
        assert seen == quick.numbers == list(range(1, 1011))
        await slow.aclose()
        await quick.stop()


async def test_in_memory_there_is_a_bound_whatever_is_configured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_IN_MEMORY", 5)
    async with opened(None) as kept:
        observe(kept, range(10))
        assert await numbers(kept) == [6, 7, 8, 9, 10]
        assert kept.unwritten == 0


def test_it_can_be_built_before_there_is_a_loop(path: Path | None):
    kept = history(path)
    observe(kept, [1])

    async def use() -> list[int]:
        kept.start()
        try:
            return await numbers(kept)
        finally:
            await kept.close()

    assert asyncio.run(use()) == [1]


async def test_a_negative_number_counts_from_the_end(path: Path | None):
    async with opened(path) as kept:
        observe(kept, range(10))
        assert await numbers(kept, -3) == [8, 9, 10]
        assert await numbers(kept, -30) == list(range(1, 11))


async def test_the_newest_are_in_memory_and_waited_for_by_nobody(path: Path | None):
    async with opened(path) as kept:
        observe(kept, range(10))
        await numbers(kept)
        assert [one.sequence for one in kept.newest(0, 3)] == [8, 9, 10]
        assert [one.sequence for one in kept.newest(8, 3)] == [9, 10]
        assert kept.newest(10, 3) == []
