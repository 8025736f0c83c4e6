"""A session whose client does not read, and grants that may not have arrived."""

import asyncio
from typing import Any

import grpc
import pytest

from fakes.polling import async_until
from gpuarbiter.v1 import error_pb2
from support.messages import acquire
from support.server import serving

from .sessions import idle, kind, silent_session


async def test_what_came_in_one_breath_with_the_end_is_answered_however_long_it_takes(monkeypatch: pytest.MonkeyPatch):
    async with serving() as arbiter, silent_session(arbiter) as (context, task):
        submit, loop = arbiter.runtime.submit, asyncio.get_running_loop()
        monkeypatch.setattr(arbiter.runtime, "submit", lambda event: loop.call_later(0.02, submit, event))
        context.put(2, check_fence={"gpu": "0", "fencing_token": 1})
        context.requests.put_nowait(grpc.aio.EOF)
        context.let_through(10)
        await task
        assert [(answer.call_id, kind(answer)) for answer in context.written] == [(1, "opened"), (2, "check_fence")]


async def test_no_more_calls_are_read_from_a_client_that_does_not_read_answers():
    async with serving() as arbiter, silent_session(arbiter) as (context, _):
        for number in range(3000):
            context.put(2 + number, check_fence={"gpu": "0", "fencing_token": 1})
        await async_until(lambda: context.requests.qsize() < 2000)
        await idle()
        left = context.requests.qsize()
        assert left > 1900, "it stopped reading"
        context.let_through(5000)
        await async_until(lambda: len(context.written) == 3001)
        assert [answer.call_id for answer in context.written] == list(range(1, 3002))


async def test_a_client_that_does_not_read_gets_the_latest_place_in_the_queue_and_no_backlog():
    async with serving() as arbiter:
        await arbiter.granted(acquire(client="other", max_hold=0))
        async with silent_session(arbiter) as (context, _):
            context.put(2, acquire=acquire(max_wait=3600))
            await idle()
            ahead = [(await arbiter.queued(acquire(priority=90, max_wait=3600)))[0] for _ in range(3)]
            for _ in range(20):
                await arbiter.advance(10.0)
            context.let_through(100)
            await idle()
            assert [answer.call_id for answer in context.written] == [1, 2]
            assert context.written[1].acquire.queued.position == 4
            ahead[0].cancel()
            await async_until(lambda: arbiter.runtime.snapshot().queue_length == 3)
            await arbiter.advance(10.0)
            await idle()
            assert context.written[2].acquire.queued.position == 3, "what was written is not changed any more"
            for each in ahead:
                each.cancel()


async def test_a_grant_that_was_not_written_before_the_client_left_is_taken_back():
    async with serving("cooldown=15s") as arbiter, silent_session(arbiter) as (context, task):
        context.put(2, acquire=acquire())
        context.put(3, acquire=acquire("r", detached=True, ttl=30))
        context.put(4, check_fence={"gpu": "0", "fencing_token": 1})
        await idle()
        assert len(arbiter.runtime.snapshot().leases) == 1
        context.requests.put_nowait(grpc.aio.EOF)
        await idle()
        assert not arbiter.runtime.snapshot().leases
        context.let_through(100)
        await task
        assert [answer.call_id for answer in context.written] == [1, 4]
        call, _ = await arbiter.granted(acquire(max_wait=0))
        call.cancel()


async def test_a_grant_that_was_being_written_when_the_client_left_counts_as_held():
    async with serving("cooldown=15s") as arbiter, silent_session(arbiter) as (context, task):
        context.let_through(1)
        context.put(2, acquire=acquire("r"))
        await idle()
        context.requests.put_nowait(grpc.aio.EOF)
        await idle()
        (lease,) = arbiter.runtime.snapshot().leases
        assert lease.request_id == "r"
        context.let_through(1)
        await task
        assert [kind(answer) for answer in context.written] == ["opened", "granted"]


async def test_a_detached_grant_that_was_being_written_when_the_client_left_lives_by_its_ttl():
    async with serving("cooldown=0s") as arbiter, silent_session(arbiter) as (context, task):
        context.let_through(1)
        context.put(2, acquire=acquire("r", detached=True, ttl=30))
        await idle()
        context.requests.put_nowait(grpc.aio.EOF)
        await idle()
        assert not arbiter.runtime._calls
        context.let_through(1)
        await task
        assert len(arbiter.runtime.snapshot().leases) == 1
        await arbiter.advance(30.0)
        assert not arbiter.runtime.snapshot().leases


async def test_hanging_up_before_a_last_granted_is_written_closes_every_call():
    async with serving(gpus=2) as arbiter, silent_session(arbiter) as (context, task):
        context.put(2, acquire=acquire("r", detached=True, ttl=30))
        context.put(3, acquire=acquire())
        await idle()
        arbiter.runtime.hang_up()
        context.let_through(100)
        await idle()
        assert [(answer.call_id, kind(answer)) for answer in context.written] == [
            (1, "opened"),
            (2, "granted"),
            (3, "granted"),
            (3, "failure"),
        ]
        assert context.written[-1].failure.reason == error_pb2.ERROR_REASON_SHUTDOWN
        assert not task.done()


async def test_a_defect_while_reading_is_not_taken_for_the_end(logged_errors: list[Any]):
    async with serving() as arbiter, silent_session(arbiter) as (context, task):
        context.let_through(10)
        context.requests.put_nowait(object())
        with pytest.raises(AttributeError):
            await task
    assert logged_errors == []
