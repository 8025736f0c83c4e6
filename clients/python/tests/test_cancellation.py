"""What only asyncio can do: be cancelled at any await."""

import asyncio
from pathlib import Path

import grpc
import pytest

from fakes.polling import async_until
from fakes.scripted_arbiter import Call, ScriptedArbiter
from gpuarbiter import AsyncArbiter, AsyncLease
from gpuarbiter.v1 import lease_pb2


def waiting(call: Call):
    """Lets it wait for ever."""
    yield call.queued()
    call.wait("never")


async def test_a_cancelled_wait_is_taken_back(scripted: ScriptedArbiter):
    scripted.scripts.append(waiting)
    async with AsyncArbiter(scripted.address) as arbiter:
        asking = asyncio.create_task(arbiter.acquire("ASR"))
        await async_until(lambda: scripted.calls)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert [request.request_id for request in scripted.seen["Release"]] == [scripted.seen["Acquire"][0].request_id]
        await async_until(scripted.calls[0].closed.is_set)


async def test_a_wait_under_a_timeout_is_taken_back(scripted: ScriptedArbiter):
    scripted.scripts.append(waiting)
    async with AsyncArbiter(scripted.address) as arbiter:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await arbiter.acquire("ASR")
        await async_until(lambda: scripted.seen["Release"])


async def test_a_wait_whose_callback_cancels_is_taken_back(scripted: ScriptedArbiter):
    async def cancel(_queued: object) -> None:
        raise asyncio.CancelledError

    scripted.scripts.append(waiting)
    async with AsyncArbiter(scripted.address) as arbiter:
        with pytest.raises(asyncio.CancelledError):
            await arbiter.acquire("ASR", on_queued=cancel)
        assert scripted.seen["Release"]


async def test_a_withdrawal_in_vain_hides_nothing(scripted: ScriptedArbiter):
    scripted.answers["Release"] = lambda _request, context: context.abort(grpc.StatusCode.UNKNOWN, "broken")
    scripted.scripts.append(waiting)
    async with AsyncArbiter(scripted.address) as arbiter:
        asking = asyncio.create_task(arbiter.acquire("ASR"))
        await async_until(lambda: scripted.calls)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_a_cancelled_body_releases_and_says_so(scripted: ScriptedArbiter):
    started = asyncio.Event()

    async def work(arbiter: AsyncArbiter) -> None:
        async with arbiter.lease("ASR"):
            started.set()
            await asyncio.Event().wait()

    async with AsyncArbiter(scripted.address) as arbiter:
        task = asyncio.create_task(work(arbiter))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (release,) = scripted.releases(1)
        assert release.report.result == lease_pb2.WORK_RESULT_CANCELLED


async def test_a_release_is_sent_when_the_block_is_cancelled_while_it_is_left(scripted: ScriptedArbiter):
    async def work(arbiter: AsyncArbiter) -> None:
        async with arbiter.lease("ASR"):
            task.cancel()  # which takes effect at the next wait

    async with AsyncArbiter(scripted.address) as arbiter:
        task = asyncio.create_task(work(arbiter))
        with pytest.raises(asyncio.CancelledError):
            await task
        await async_until(lambda: scripted.seen["Release"])


async def test_a_release_goes_on_when_its_caller_is_cancelled(scripted: ScriptedArbiter):
    def slow(_request: object, _context: object):
        from gpuarbiter.v1 import gpu_arbiter_pb2 as pb

        scripted.gate("go").wait(10)
        return pb.ReleaseResponse(reason=lease_pb2.END_REASON_RELEASED)

    scripted.answers["Release"] = slow
    async with AsyncArbiter(scripted.address) as arbiter:
        lease = await arbiter.acquire("ASR")
        assert isinstance(lease, AsyncLease)
        releasing = asyncio.create_task(lease.release())
        await async_until(lambda: scripted.seen["Release"])
        releasing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await releasing
        assert lease.released is None
        scripted.open("go")
        await async_until(lambda: lease.released)


async def test_callbacks_may_be_coroutine_functions_and_release(scripted: ScriptedArbiter):
    def script(call: Call):
        yield call.queued()
        yield call.granted()
        yield call.yield_requested()
        yield from call.hold()

    heard: list[object] = []

    async def note(*arguments: object) -> None:
        await asyncio.sleep(0)
        heard.append(arguments[-1])

    async def give_back(lease: AsyncLease, _asked: object) -> None:
        heard.append(await lease.release())

    scripted.scripts.append(script)
    async with AsyncArbiter(scripted.address) as arbiter, arbiter.lease("ASR", on_queued=note, on_yield=give_back):
        await async_until(lambda: len(heard) == 2)
    assert len(scripted.seen["Release"]) == 1


async def test_many_leases_at_once(scripted: ScriptedArbiter):
    async def work(arbiter: AsyncArbiter) -> str:
        async with arbiter.lease("ASR") as lease:
            return lease.request_id

    async with AsyncArbiter(scripted.address) as arbiter:
        ids = await asyncio.gather(*(work(arbiter) for _ in range(10)))
    assert len(set(ids)) == 10


async def test_an_attestation_is_asked_for_without_holding_up_the_loop(
    scripted: ScriptedArbiter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "arbiter.sock.attest").touch()
    monkeypatch.setattr("gpuarbiter._holder.read_attestation", lambda path: f"proof of {path.name}")
    scripted.stop()
    scripted.start(f"unix:{tmp_path}/arbiter.sock")
    async with AsyncArbiter(f"unix:{tmp_path}/arbiter.sock") as arbiter, arbiter.lease("ASR"):
        assert scripted.seen["Acquire"][0].holder.attestation == "proof of arbiter.sock.attest"
