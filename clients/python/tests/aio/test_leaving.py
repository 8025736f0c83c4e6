"""Leaving the block: the release is on its way, and nobody waits for its answer."""

from typing import Any

import grpc
import pytest

from fakes.polling import async_until
from fakes.scripted_arbiter import Call, ScriptedArbiter
from gpuarbiter import AsyncArbiter, AsyncLease, LeaseLost
from gpuarbiter._aio import backend
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import lease_pb2

RELEASED = pb.ReleaseResponse(reason=lease_pb2.END_REASON_RELEASED)


async def leave(arbiter: AsyncArbiter) -> AsyncLease:
    async with arbiter.lease("ASR") as lease:
        pass
    return lease


def answer_when_told(scripted: ScriptedArbiter) -> None:
    def slow(_request: Any, _context: Any) -> pb.ReleaseResponse:
        scripted.gate("answer").wait(10)
        return RELEASED

    scripted.answers["Release"] = slow


async def test_the_block_is_left_before_the_answer(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    answer_when_told(scripted)
    lease = await leave(arbiter)
    assert lease.released is None
    with pytest.raises(LeaseLost, match="was released"):
        lease.check()
    assert not lease.lost
    await async_until(lambda: scripted.seen["Release"])
    scripted.open("answer")
    await async_until(lambda: lease.released)
    assert await lease.wait_yield() is None
    assert not scripted.seen["CancelAcquire"]


async def test_releasing_it_again_waits_for_that_answer(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    answer_when_told(scripted)
    lease = await leave(arbiter)
    releasing = backend.spawn(lease.release)
    await async_until(lambda: scripted.seen["Release"])
    scripted.open("answer")
    await backend.settle([releasing], 10.0)
    assert lease.released is not None
    assert not lease.released.already_ended
    assert await lease.release() is lease.released
    assert len(scripted.seen["Release"]) == 1


async def test_what_is_asked_for_next_comes_after_it(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    answer_when_told(scripted)
    for _ in range(20):
        await leave(arbiter)
    scripted.open("answer")
    await arbiter.close()
    assert scripted.arrived == ["open", *["acquire", "release"] * 20]


async def test_closing_the_arbiter_waits_for_the_answer(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    answer_when_told(scripted)
    lease = await leave(arbiter)
    closing = backend.spawn(arbiter.close)
    await async_until(lambda: scripted.seen["Release"])
    scripted.open("answer")
    await backend.settle([closing], 10.0)
    assert lease.released is not None
    assert len(scripted.seen["Release"]) == 1


async def test_closing_the_arbiter_waits_for_so_long(
    scripted: ScriptedArbiter,
    arbiter: AsyncArbiter,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("gpuarbiter._aio.arbiter.RELEASE_SECONDS", 0.2)
    answer_when_told(scripted)
    lease = await leave(arbiter)
    await arbiter.close()
    assert lease.released is None
    assert "lease-1 could not be released, and ends by itself: this Arbiter was closed" in caplog.text
    scripted.open("answer")


async def test_a_line_that_breaks_before_the_answer_costs_nothing(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    answer_when_told(scripted)
    lease = await leave(arbiter)
    await async_until(lambda: scripted.seen["Release"])
    scripted.stop()
    scripted.answers["Release"] = lambda _request, _context: RELEASED
    scripted.start()
    await async_until(lambda: lease.released)
    first, again = scripted.seen["Release"]
    assert again == first, "with the report of the block"
    assert len(scripted.seen["Session"]) == 1, "nothing else needs a line"
    scripted.open("answer")


async def test_after_a_break_it_is_given_back_before_anything_is_asked_for(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter
):
    def failing_first(_request: Any, context: Any) -> pb.ReleaseResponse:
        if len(scripted.seen["Release"]) < 4:
            context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        return RELEASED

    def granted(call: Call):
        released_before.append(len(scripted.seen["Release"]))
        yield call.granted()
        yield from call.hold()

    released_before: list[int] = []
    scripted.answers["Release"] = failing_first
    lease = await leave(arbiter)
    await async_until(lambda: len(scripted.seen["Release"]) > 1)
    scripted.scripts.append(granted)
    async with arbiter.lease("NMT"):
        assert released_before == [4]
        assert lease.released is not None


async def test_a_release_that_nobody_takes_is_logged(
    scripted: ScriptedArbiter,
    arbiter: AsyncArbiter,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("gpuarbiter._aio.lease.RELEASE_SECONDS", 0.3)
    scripted.answers["Release"] = lambda _request, context: context.abort(grpc.StatusCode.UNAVAILABLE, "away")
    lease = await leave(arbiter)
    await async_until(lambda: "lease-1 could not be released, and ends by itself" in caplog.text)
    assert lease.released is None
    assert len(scripted.seen["Release"]) > 1
    await async_until(lambda: scripted.seen["CancelAcquire"])


async def test_a_release_that_is_refused_is_logged_at_once(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, caplog: pytest.LogCaptureFixture
):
    scripted.answers["Release"] = lambda _request, context: context.abort(grpc.StatusCode.NOT_FOUND, "whose?")
    lease = await leave(arbiter)
    await async_until(lambda: "ends by itself: whose?" in caplog.text)
    assert lease.released is None
    assert len(scripted.seen["Release"]) == 1
    await async_until(lambda: scripted.seen["CancelAcquire"])


async def test_what_may_not_live_any_more_is_waited_for(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async with arbiter.lease("ASR") as lease:
        scripted.stop()
        await async_until(lambda: lease.uncertain)
        scripted.start()
    assert lease.released is not None
    async with arbiter.lease("ASR", ttl=60, detached=True) as detached:
        pass
    assert detached.released is not None
