import asyncio
import threading
import time

import pytest

from gpuarbiter_server.runtime import clock
from gpuarbiter_server.runtime.threads import within


async def test_a_call_is_made_on_a_thread_of_its_own():
    assert await within(10.0, threading.get_ident) != threading.get_ident()


async def test_what_it_raises_is_raised_where_it_is_waited_for():
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await within(10.0, fail)


async def test_one_that_takes_too_long_is_left_behind():
    released = threading.Event()
    with pytest.raises(TimeoutError):
        await within(0.01, released.wait)
    (left,) = [thread for thread in threading.enumerate() if thread.name == "Event.wait"]
    assert left.daemon, "it keeps no process from ending"
    released.set()
    await asyncio.to_thread(left.join)


def test_one_that_outlives_the_loop_is_no_error():
    released = threading.Event()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await within(0.01, released.wait)

    asyncio.run(give_up())
    (left,) = [thread for thread in threading.enumerate() if thread.name == "Event.wait"]
    released.set()
    left.join()


def test_the_clock_that_decides_only_ever_rises():
    readings = [clock.monotonic() for _ in range(1000)]
    assert readings == sorted(readings)


def test_without_a_clock_that_counts_suspend_the_plain_one_decides(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    assert abs(clock.monotonic() - time.monotonic()) < 1


def test_the_clock_for_people_is_unix_time():
    assert abs(clock.wall() - time.time()) < 1
