"""A client may be gone at any moment: nothing of its request may stay, and no grant may be lost to it."""

import asyncio
from typing import Any

import pytest

from fakes.polling import async_until
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter_server.api.acquiring import Outbox, carry
from gpuarbiter_server.api.convert_out import Converter
from gpuarbiter_server.core import effects as fx
from gpuarbiter_server.core import events as ev
from gpuarbiter_server.core.errors import ArbiterError, ErrorReason
from gpuarbiter_server.core.model import AcquireRequest, EndReason, EventType, Holder, WaitReason
from support.messages import acquire, holder, release
from support.server import InProcess, serving

# A call takes about a millisecond here. Where it is when it is cancelled is left to chance, many times over;
# below, the handlers are cancelled at each of their steps in turn.
STEPS = 60
STEP_SECONDS = 50e-6


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def nothing_left(arbiter: InProcess) -> bool:
    view = arbiter.runtime.snapshot()
    return not view.leases and not view.queue and not arbiter.runtime._calls


async def nothing_stays(arbiter: InProcess) -> None:
    await async_until(lambda: nothing_left(arbiter), "for the arbiter to forget")
    assert not arbiter.arbiter._state.calls
    assert not arbiter.arbiter._state.waiting


async def test_an_acquire_of_a_free_gpu_cancelled_at_any_time_leaves_nothing():
    async with serving("cooldown=0s") as arbiter:
        for count in range(STEPS):
            call = arbiter.stub.Acquire(acquire())
            await asyncio.sleep(count * STEP_SECONDS)
            call.cancel()
            await nothing_stays(arbiter)
        granted = [event for event in await arbiter.events() if event.type == EventType.GRANTED]
        assert 0 < len(granted) < STEPS, "some were cancelled before their grant, and some after"


async def test_a_waiting_acquire_cancelled_at_any_time_leaves_nothing():
    async with serving("cooldown=0s") as arbiter:
        _, lease = await arbiter.granted(acquire(max_hold=0))
        for count in range(STEPS):
            call = arbiter.stub.Acquire(acquire(max_wait=60))
            await asyncio.sleep(count * STEP_SECONDS)
            call.cancel()
            await async_until(lambda: len(arbiter.runtime._calls) == 1 and not arbiter.runtime.snapshot().queue)
        await arbiter.stub.Release(release(lease))
        await nothing_stays(arbiter)


async def test_a_waiter_cancelled_about_when_its_turn_comes_loses_no_grant():
    async with serving("cooldown=0s") as arbiter:
        for count in range(STEPS):
            _, lease = await arbiter.granted(acquire())
            leaving, _ = await arbiter.queued(acquire(client="leaving", max_wait=60))
            staying, _ = await arbiter.queued(acquire(client="staying", max_wait=60))
            released = asyncio.ensure_future(arbiter.stub.Release(release(lease)))
            await asyncio.sleep(count * STEP_SECONDS)
            leaving.cancel()
            answer = await staying.read()
            while answer.HasField("queued"):
                answer = await staying.read()
            await released
            await arbiter.stub.Release(release(answer.granted.lease))
            assert (await staying.read()).HasField("ended")
            await nothing_stays(arbiter)


async def test_a_named_request_cancelled_at_any_time_can_be_joined_or_is_forgotten():
    async with serving("cooldown=0s") as arbiter:
        for count in range(0, STEPS, 2):
            call = arbiter.stub.Acquire(acquire(f"r-{count}", max_hold=0, max_wait=60))
            await asyncio.sleep(count * STEP_SECONDS)
            call.cancel()
            await arbiter.at_rest()
            if count % 4:
                await arbiter.advance(5.0)
            else:
                call, lease = await arbiter.granted(acquire(f"r-{count}", max_hold=0, max_wait=60))
                await arbiter.stub.Release(release(lease))
                assert (await call.read()).HasField("ended")
            await nothing_stays(arbiter)


async def test_unary_calls_cancelled_at_any_time_leave_nothing():
    async with serving("cooldown=0s") as arbiter:
        for count in range(0, STEPS, 2):
            call, lease = await arbiter.granted(acquire())
            unary = arbiter.stub.Release(release(lease))
            await asyncio.sleep(count * STEP_SECONDS)
            unary.cancel()
            call.cancel()
            await nothing_stays(arbiter)


async def test_a_session_cancelled_at_any_time_leaves_nothing():
    async with serving("cooldown=0s") as arbiter:
        for count in range(STEPS):
            call = arbiter.stub.Session()
            await call.write(pb.SessionRequest(call_id=1, open={"holder": holder()}))
            await call.write(pb.SessionRequest(call_id=2, acquire=acquire()))
            await call.write(pb.SessionRequest(call_id=3, acquire=acquire(max_wait=60)))
            await asyncio.sleep(count * STEP_SECONDS)
            call.cancel()
            await nothing_stays(arbiter)


# -- at each step of the handler --


class SlowContext:
    """A stream on which each message takes some turns of the loop to be written."""

    def __init__(self, turns_of_a_write: int = 2) -> None:
        self.written: list[Any] = []
        self._turns = turns_of_a_write

    def invocation_metadata(self) -> tuple[()]:
        """Nothing."""
        return ()

    async def write(self, message: Any) -> None:
        await turns(self._turns)
        self.written.append(message)


async def held_by_another(arbiter: InProcess) -> Any:
    """A lease, and the task that carries it."""
    context = SlowContext(0)
    task = asyncio.create_task(arbiter.service.acquire(acquire(max_hold=0), context))
    await turns(5)
    return task, context.written[0].granted.lease


async def test_an_acquire_leaves_nothing_at_whichever_step_it_is_cancelled():
    granted = []
    async with serving("cooldown=0s") as arbiter:
        for cancel_at in range(15):
            context = SlowContext()
            task = asyncio.create_task(arbiter.service.acquire(acquire(), context))
            await turns(cancel_at)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await turns(3)
            assert nothing_left(arbiter), f"cancelled at step {cancel_at}"
            granted.append(len(context.written))
    assert granted == sorted(granted)
    assert set(granted) == {0, 1}


async def test_a_waiter_leaves_nothing_at_whichever_step_it_is_cancelled_or_granted():
    came_to_its_grant = set()
    async with serving("cooldown=0s") as arbiter:
        for release_at in range(1, 10):
            for cancel_at in range(1, 20):
                holding, lease = await held_by_another(arbiter)
                context = SlowContext()
                waiting = asyncio.create_task(arbiter.service.acquire(acquire(max_wait=60), context))
                for step in range(20):
                    await asyncio.sleep(0)
                    if step == release_at:
                        let_go(arbiter, lease)
                    if step == cancel_at:
                        waiting.cancel()
                await asyncio.gather(waiting, holding, return_exceptions=True)
                await turns(3)
                assert nothing_left(arbiter), f"released at step {release_at}, cancelled at {cancel_at}"
                came_to_its_grant.add(any(answer.HasField("granted") for answer in context.written))
    assert came_to_its_grant == {False, True}


def let_go(arbiter: InProcess, lease: Any) -> None:
    """The holder's word, without a wait for the answer."""
    call = arbiter.runtime.open(lambda _: None)
    arbiter.runtime.submit(ev.Release(call, ev.Caller(), lease.lease_id))


# -- a Granted that may or may not have left --


class StuckContext:
    """A stream that takes so many messages, and then no more."""

    def __init__(self, room: int) -> None:
        self.written: list[Any] = []
        self._room = room

    def invocation_metadata(self) -> tuple[()]:
        """Nothing."""
        return ()

    async def write(self, message: Any) -> None:
        if len(self.written) >= self._room:
            await asyncio.Event().wait()
        self.written.append(message)


async def carried(arbiter: InProcess, context: Any, request_id: str = "") -> "asyncio.Task[None]":
    """An Acquire over this stream."""
    outbox = Outbox()
    call = arbiter.runtime.open(outbox.put)
    request = AcquireRequest("ASR", Holder("worker-0"), request_id, max_wait=60.0)
    arbiter.runtime.submit(ev.Acquire(call, request))
    carrying = carry(context, arbiter.runtime, call, outbox, Converter("node", arbiter.clock))
    task = asyncio.create_task(carrying)
    await turns(10)
    return task


async def cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def cancelled_as_it_is_granted(arbiter: InProcess, request_id: str = "") -> None:
    """A waiter whose stream breaks in the very turn that brings its grant."""
    holding, lease = await held_by_another(arbiter)
    task = await carried(arbiter, StuckContext(1), request_id)
    let_go(arbiter, lease)
    await turns(1)
    assert len(arbiter.runtime.snapshot().leases) == 1, "it is granted"
    await cancelled(task)
    await holding


async def test_a_grant_whose_waiter_is_gone_is_taken_back_and_costs_no_cooldown():
    async with serving("cooldown=15s") as arbiter:
        await cancelled_as_it_is_granted(arbiter)
        await nothing_stays(arbiter)
        call, _ = await arbiter.granted(acquire(max_wait=0))
        call.cancel()


async def test_a_named_request_that_was_gone_when_its_grant_came_waits_for_its_client():
    async with serving("cooldown=15s") as arbiter:
        await cancelled_as_it_is_granted(arbiter, "r")
        await arbiter.at_rest()
        view = arbiter.runtime.snapshot()
        assert (len(view.leases), [ticket.request_id for ticket in view.queue]) == (0, ["r"])
        call, _ = await arbiter.granted(acquire(max_wait=0))
        call.cancel()


@pytest.mark.parametrize("room", [0, 1], ids=["being written", "written"])
async def test_a_grant_that_may_have_arrived_counts_as_held(room: int):
    async with serving("cooldown=15s") as arbiter:
        context = StuckContext(room)
        await cancelled(await carried(arbiter, context))
        assert [answer.WhichOneof("event") for answer in context.written] == ["granted"] * room
        await nothing_stays(arbiter)
        waiting, told = await arbiter.queued(acquire(max_wait=60))
        assert told.reason == WaitReason.COOLDOWN
        waiting.cancel()


# -- what is to be written next --


def queued(position: int) -> fx.Queued:
    return fx.Queued(1, "r", position, 1, WaitReason.GPU_BUSY, None, "", ())


async def test_a_queued_that_was_not_written_gives_way_to_what_is_newer():
    outbox = Outbox()
    outbox.put(queued(3))
    outbox.put(queued(2))
    assert await outbox.next() == queued(2)
    outbox.put(queued(1))
    failed = fx.Failed(1, ArbiterError(ErrorReason.SHUTDOWN, "no"))
    ended = fx.Ended(1, EndReason.RELEASED, held=0.0)
    outbox.put(failed)
    outbox.put(ended)
    assert [await outbox.next(), await outbox.next()] == [failed, ended]


async def test_who_waits_for_the_next_effect_gets_it():
    outbox = Outbox()
    waiting = asyncio.create_task(outbox.next())
    await turns(1)
    outbox.put(queued(1))
    outbox.put(queued(2))
    assert await waiting == queued(2)
