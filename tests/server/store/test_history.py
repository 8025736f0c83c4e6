import asyncio

from gpuarbiter_server.core.effects import Recorded
from gpuarbiter_server.core.model import EventType
from gpuarbiter_server.store.history import History

EVENT = Recorded(EventType.RENEWED)


class Wall:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def filled(count: int, limit: int = 100) -> History:
    """Events 1 to count, a second apart from 100 on."""
    wall = Wall()
    history = History(limit, wall=wall)
    for _ in range(count):
        history.observe(EVENT)
        wall.now += 1
    return history


def numbers(history: History, sequence: int = 0, since: float = 0.0) -> list[int]:
    return [event.sequence for event in history.after(sequence, since=since)]


async def test_events_are_numbered_without_gaps_from_one():
    history = filled(3)
    assert [(event.sequence, event.time, event.recorded) for event in history.after(0)] == [
        (1, 100.0, EVENT),
        (2, 101.0, EVENT),
        (3, 102.0, EVENT),
    ]


async def test_only_the_newest_are_kept():
    assert numbers(filled(10, limit=4)) == [7, 8, 9, 10]


async def test_nothing_is_kept_where_nothing_may_be():
    history = filled(3, limit=0)
    assert numbers(history) == []
    assert numbers(history, 2) == []


async def test_the_answer_begins_after_a_sequence_or_with_the_oldest_there_is():
    history = filled(10, limit=4)
    for after, expected in ((0, [7, 8, 9, 10]), (6, [7, 8, 9, 10]), (8, [9, 10]), (10, []), (11, []), (2**64 - 1, [])):
        assert numbers(history, after) == expected, after
    assert numbers(History(4, wall=Wall()), 2**64 - 1) == []


async def test_the_answer_begins_at_a_time():
    assert numbers(filled(5), since=102.0) == [3, 4, 5]
    assert numbers(filled(5), 4, since=102.0) == [5]
    assert numbers(filled(5), since=999.0) == []


class Follower:
    """Reads along in a task of its own."""

    def __init__(self, history: History, sequence: int = 0, since: float = 0.0) -> None:
        self.seen: list[int] = []
        self.task = asyncio.create_task(self._read(history, sequence, since))

    async def _read(self, history: History, sequence: int, since: float) -> None:
        async for event in history.follow(sequence, since=since):
            self.seen.append(event.sequence)

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def settle() -> None:
    """Everything that can run without something new to happen has run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_follower_gets_what_is_kept_and_then_what_comes():
    history = filled(3)
    first, second = Follower(history, 1), Follower(history)
    await settle()
    assert (first.seen, second.seen) == ([2, 3], [1, 2, 3])
    history.observe(EVENT)
    history.observe(EVENT)
    await settle()
    assert (first.seen, second.seen) == ([2, 3, 4, 5], [1, 2, 3, 4, 5])
    history.observe(EVENT)
    await settle()
    assert first.seen[-1] == second.seen[-1] == 6
    await first.stop()
    await second.stop()


async def test_a_follower_of_a_time_to_come_waits_for_it():
    wall = Wall()
    history = History(10, wall=wall)
    follower = Follower(history, since=200.0)
    await settle()
    history.observe(EVENT)
    await settle()
    assert follower.seen == []
    wall.now = 200.0
    history.observe(EVENT)
    await settle()
    assert follower.seen == [2]
    await follower.stop()


async def test_a_follower_that_falls_behind_goes_on_with_the_oldest_there_is():
    history = filled(1, limit=3)
    reader = history.follow(0)
    assert (await anext(reader)).sequence == 1
    for _ in range(10):
        history.observe(EVENT)
    assert [(await anext(reader)).sequence for _ in range(3)] == [9, 10, 11]
    await reader.aclose()


async def test_where_nothing_is_kept_a_follower_waits_all_the_same():
    history = filled(3, limit=0)
    follower = Follower(history)
    await settle()
    history.observe(EVENT)
    await settle()
    assert follower.seen == []
    await follower.stop()
