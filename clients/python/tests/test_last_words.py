"""A release that nobody waits for, and the loop that ends right after it."""

import asyncio
import threading
from typing import Any

import pytest

from fakes.polling import until
from fakes.scripted_arbiter import ScriptedArbiter
from gpuarbiter import AsyncArbiter, AsyncLease
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import lease_pb2

RELEASED = pb.ReleaseResponse(reason=lease_pb2.END_REASON_RELEASED)
# An Arbiter of a loop that is gone is not to be destroyed before the test is over.
kept: list[AsyncArbiter] = []


async def leave(address: str) -> AsyncLease:
    arbiter = AsyncArbiter(address)
    kept.append(arbiter)
    async with arbiter.lease("ASR") as lease:
        pass
    return lease


def test_a_loop_that_ends_asks_again_where_it_has_no_answer(
    scripted: ScriptedArbiter, caplog: pytest.LogCaptureFixture
):
    never = threading.Event()

    def answer(_request: Any, _context: Any) -> pb.ReleaseResponse:
        if len(scripted.seen["Release"]) == 1:
            never.wait(10)
        return RELEASED

    async def ending() -> AsyncLease:
        lease = await leave(scripted.address)
        await asyncio.to_thread(until, lambda: scripted.seen["Release"])
        return lease

    scripted.answers["Release"] = answer
    lease = asyncio.run(ending())
    assert lease.released is not None
    assert len(scripted.seen["Release"]) == 2
    assert not caplog.text
    never.set()


def test_a_loop_that_ends_at_once_has_given_back(scripted: ScriptedArbiter):
    lease = asyncio.run(leave(scripted.address))
    assert lease.released is not None
    assert scripted.seen["Release"]


def test_a_loop_that_stands_still_has_sent_it(scripted: ScriptedArbiter):
    async def standing(arbiter: AsyncArbiter) -> None:
        async def work() -> None:
            async with arbiter.lease("ASR") as lease:
                leases.append(lease)
                if len(leases) == many:
                    everybody.set()
                await everybody.wait()

        everybody = asyncio.Event()

        await asyncio.gather(*(work() for _ in range(many)))

    many = 8
    leases: list[AsyncLease] = []
    loop = asyncio.new_event_loop()
    arbiter = AsyncArbiter(scripted.address)
    loop.run_until_complete(standing(arbiter))
    until(lambda: len(scripted.seen["Release"]) == many)
    loop.run_until_complete(arbiter.close())
    assert all(lease.released for lease in leases)
    assert len(scripted.seen["Release"]) == many
    loop.close()


def test_an_arbiter_out_of_reach_holds_up_the_end_for_a_moment_only(
    scripted: ScriptedArbiter, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    async def ending() -> AsyncLease:
        lease = await leave(scripted.address)
        await asyncio.to_thread(until, lambda: scripted.seen["Release"])
        scripted.stop()
        return lease

    def refuse(_request: Any, _context: Any) -> pb.ReleaseResponse:
        gone.wait(10)
        return RELEASED

    gone = threading.Event()
    monkeypatch.setattr("gpuarbiter._aio.lease.RELEASE_SECONDS", 0.3)
    scripted.answers["Release"] = refuse
    lease = asyncio.run(ending())
    assert lease.released is None
    assert "could not be released, and ends by itself" in caplog.text
    gone.set()
