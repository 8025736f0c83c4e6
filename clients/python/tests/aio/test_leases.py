"""A lease from its grant to its end."""

from datetime import timedelta
from typing import Any

import pytest

from fakes.polling import async_until
from fakes.scripted_arbiter import UUID, Call, ScriptedArbiter, seconds
from gpuarbiter import AsyncArbiter, AsyncLease, LeaseLost, WorkContext, WorkReport, YieldRequest
from gpuarbiter.v1 import lease_pb2


async def test_a_with_block_holds_a_lease_and_gives_it_back(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async with arbiter.lease("ASR", memory="6GiB") as lease:
        assert arbiter.address == scripted.address
        assert lease.lease_id == "lease-1"
        assert lease.fencing_token == 7
        assert lease.task_type == "ASR"
        assert lease.visible_devices == UUID
        assert lease.node == "node-1"
        assert lease.sharing == "EXCLUSIVE"
        assert lease.priority == 0
        assert lease.gpus[0].declared_bytes == 6 * 2**30
        assert lease.request_id == scripted.seen["Acquire"][0].request_id
        assert (lease.hold_remaining, lease.ttl_remaining) == (None, None)
        assert not any((lease.lost, lease.uncertain, lease.yield_requested, lease.detached))
        assert lease.released is None
        lease.check()

    released = await lease.release()
    assert released is lease.released
    assert released.reason == "RELEASED"
    assert released.held == timedelta(seconds=1.5)
    assert not lease.lost
    (release,) = scripted.seen["Release"]
    assert (release.lease_id, release.fencing_token) == ("lease-1", 7)
    assert release.report.result == lease_pb2.WORK_RESULT_OK
    assert release.report.device == lease_pb2.WORK_DEVICE_GPU
    assert release.report.HasField("duration")
    await async_until(scripted.calls[0].closed.is_set, "for the stream to be closed")
    with pytest.raises(LeaseLost, match="was released") as caught:
        lease.check()
    assert caught.value.reason == "RELEASED"


async def test_everything_that_can_be_asked_for_arrives(scripted: ScriptedArbiter):
    context = WorkContext("job", "session", 3, "NMT", {"tenant": "a"})
    async with (
        AsyncArbiter(scripted.address, client_id="me", token="secret") as arbiter,
        arbiter.lease(
            "NMT",
            memory="1GiB",
            count=2,
            gpus=["gpu:0", "gpu:1"],
            shared=True,
            priority=80,
            max_wait="3s",
            max_hold="10m",
            ttl=30,
            busy_policy="SKIP",
            placement="BEST_FIT",
            resident="512MiB",
            sequence=("session", 4),
            context=context,
            request_id="mine",
        ),
    ):
        (request,) = scripted.seen["Acquire"]
        assert scripted.metadata[0]["authorization"] == "Bearer secret"
    assert request.request_id == "mine"
    assert request.holder.client_id == "me"
    assert request.holder.pid > 0
    assert list(request.gpu.candidates) == ["gpu:0", "gpu:1"]
    assert (request.gpu.count, request.gpu.memory_bytes, request.gpu.resident_bytes) == (2, 2**30, 2**29)
    assert request.gpu.sharing == lease_pb2.SHARING_SHARED
    assert request.gpu.placement == lease_pb2.PLACEMENT_BEST_FIT
    assert request.priority == 80
    assert request.busy_policy == lease_pb2.BUSY_POLICY_SKIP
    assert (request.max_wait, request.max_hold, request.ttl) == (seconds(3), seconds(600), seconds(30))
    assert (request.sequence.group, request.sequence.index) == ("session", 4)
    assert (request.context.job_id, request.context.utterance_index) == ("job", 3)
    assert dict(request.context.attributes) == {"tenant": "a"}


async def test_what_is_not_asked_for_is_left_to_the_policy(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async with arbiter.lease("ASR"):
        (request,) = scripted.seen["Acquire"]
    unset = ("priority", "max_wait", "max_hold", "ttl", "sequence", "context")
    assert not any(request.HasField(name) for name in unset)
    assert (request.gpu.sharing, request.busy_policy, request.gpu.placement) == (0, 0, 0)
    assert request.gpu.count == 1
    assert len(request.request_id) == 36


async def test_each_lease_has_a_request_id_of_its_own(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    manager = arbiter.lease("ASR")
    async with manager:
        pass
    async with manager:
        pass
    first, second = scripted.seen["Acquire"]
    assert first.request_id != second.request_id


async def test_a_manager_cannot_be_entered_twice_at_once(arbiter: AsyncArbiter):
    manager = arbiter.lease("ASR")
    await manager.__aenter__()
    with pytest.raises(RuntimeError, match="entered already"):
        await manager.__aenter__()
    await manager.__aexit__(None, None, None)


async def test_an_unknown_keyword_is_refused_as_by_a_signature(arbiter: AsyncArbiter):
    with pytest.raises(TypeError, match="unexpected keyword argument 'memroy'"):
        arbiter.lease("ASR", memroy="6GiB")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'memroy'"):
        await arbiter.acquire("ASR", memroy="6GiB")  # type: ignore[call-arg]


async def fail_under_a_lease(arbiter: AsyncArbiter):
    async with arbiter.lease("ASR"):
        raise ZeroDivisionError


async def test_an_exception_of_the_body_passes_and_is_reported(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    with pytest.raises(ZeroDivisionError):
        await fail_under_a_lease(arbiter)
    assert scripted.releases(1)[0].report.result == lease_pb2.WORK_RESULT_FAILED


async def test_a_failing_release_does_not_hide_the_exception_of_the_body(
    scripted: ScriptedArbiter,
    arbiter: AsyncArbiter,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    def broken(_request: Any, _context: Any):
        raise RuntimeError("the arbiter has a bug")

    monkeypatch.setattr("gpuarbiter._aio.lease.RELEASE_SECONDS", 0.3)
    scripted.answers["Release"] = broken
    with pytest.raises(ZeroDivisionError):
        await fail_under_a_lease(arbiter)
    await async_until(lambda: "could not be released" in caplog.text)
    await async_until(scripted.calls[0].closed.is_set, "for the stream to be closed")


async def test_what_the_caller_reports_counts(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async with arbiter.lease("ASR") as lease:
        lease.report(WorkReport("OUT_OF_MEMORY", work_items=8, peak_memory="2GiB", duration="1s"))
    lease = await arbiter.acquire("ASR")
    assert isinstance(lease, AsyncLease)
    await lease.release(WorkReport(result="CANCELLED", device="CPU"))
    first, second = (request.report for request in scripted.seen["Release"])
    assert (first.result, first.work_items) == (lease_pb2.WORK_RESULT_OUT_OF_MEMORY, 8)
    assert (first.peak_memory_bytes, first.duration) == (2 * 2**30, seconds(1))
    assert (second.result, second.device) == (lease_pb2.WORK_RESULT_CANCELLED, lease_pb2.WORK_DEVICE_CPU)


async def test_releasing_twice_asks_once(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async with arbiter.lease("ASR") as lease:
        first = await lease.release()
        assert await lease.release() is first
    assert len(scripted.seen["Release"]) == 1


async def test_a_yield_request_is_flagged_called_back_and_waited_for(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    def script(call: Call):
        yield call.granted()
        call.wait("ask")
        yield call.yield_requested("PREEMPTED", grace=30)
        yield from call.hold()

    scripted.scripts.append(script)
    heard: list[YieldRequest] = []
    async with (
        arbiter.lease("ASR", on_yield=lambda _lease, asked: heard.append(asked)) as lease,
    ):
        assert await lease.wait_yield(0) is None
        assert await lease.wait_yield("1ms") is None
        scripted.open("ask")
        asked = await lease.wait_yield()
        assert asked == YieldRequest("PREEMPTED", "please", timedelta(seconds=30))
        assert asked is lease.yield_requested
        assert asked.deadline is not None
        assert asked.remaining is not None
        assert timedelta(seconds=20) < asked.remaining <= timedelta(seconds=30)
        await async_until(lambda: heard)
        assert heard == [asked]
        lease.check()
        assert not lease.lost


async def test_waiting_for_a_yield_ends_with_the_lease(arbiter: AsyncArbiter):
    async with arbiter.lease("ASR") as lease:
        await lease.release()
        assert await lease.wait_yield() is None


async def test_an_end_that_the_holder_did_not_ask_for_is_a_loss(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, caplog: pytest.LogCaptureFixture
):
    def script(call: Call):
        yield call.granted()
        call.wait("revoke")
        yield call.ended("REVOKED", detail="past its deadline", memory_peak_bytes=5, memory_verdict=2)

    scripted.scripts.append(script)
    lost: list[str] = []
    async with (
        arbiter.lease("ASR", on_lost=lambda lease: lost.append(lease.lost_reason)) as lease,
    ):
        scripted.open("revoke")
        with pytest.raises(LeaseLost, match="past its deadline"):
            await lease.wait_yield()
        assert lease.lost
        assert (lease.lost_reason, lease.lost_detail) == ("REVOKED", "past its deadline")
        await async_until(lambda: lost)
        with pytest.raises(LeaseLost) as caught:
            lease.check()
        assert caught.value.reason == "REVOKED"
    assert lost == ["REVOKED"]
    assert "lease-1 is lost: REVOKED" in caplog.text
    assert lease.released is not None
    assert lease.released.already_ended
    assert (lease.released.memory_verdict, lease.released.memory_peak_bytes) == ("OVER", 5)
    assert not scripted.seen["Release"], "what has ended needs no release"


async def test_callbacks_that_raise_change_nothing(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, caplog: pytest.LogCaptureFixture
):
    def script(call: Call):
        yield call.queued()
        yield call.granted()
        yield call.yield_requested()
        call.wait("end")
        yield call.ended("MAX_HOLD")

    def raising(*_arguments: Any):
        raise ZeroDivisionError

    scripted.scripts.append(script)
    async with (
        arbiter.lease("ASR", on_queued=raising, on_yield=raising, on_lost=raising) as lease,
    ):
        assert await lease.wait_yield() is not None
        scripted.open("end")
        await async_until(lambda: lease.lost)
        await async_until(lambda: "on_lost raised" in caplog.text)
        assert "on_queued raised" in caplog.text
        assert "on_yield raised" in caplog.text


async def test_the_places_in_the_queue_are_told(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    def script(call: Call):
        blocker = lease_pb2.Blocker(lease_id="x", task_type="LLM", client_id="c", gpu="gpu:0", held=seconds(9))
        yield call.queued(2, blockers=[blocker], estimated_wait=seconds(4), detail="LLM since 9 s")
        yield call.queued(1, "MEMORY")
        yield call.granted(queue_wait=seconds(0.5))
        yield from call.hold()

    scripted.scripts.append(script)
    places = []
    async with arbiter.lease("ASR", on_queued=places.append) as lease:
        assert lease.queue_wait == timedelta(seconds=0.5)
    first, second = places
    assert (first.position, first.reason, first.detail) == (2, "GPU_BUSY", "LLM since 9 s")
    assert first.estimated_wait == timedelta(seconds=4)
    assert first.blockers[0].held == timedelta(seconds=9)
    assert (second.position, second.reason, second.estimated_wait) == (1, "MEMORY", None)


async def test_events_that_are_not_known_are_ignored(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    def script(call: Call):
        from gpuarbiter.v1 import gpu_arbiter_pb2 as pb

        yield pb.AcquireResponse()
        yield call.granted()
        yield pb.AcquireResponse()
        yield call.queued()
        yield call.yield_requested()
        yield from call.hold()

    scripted.scripts.append(script)
    async with arbiter.lease("ASR") as lease:
        assert await lease.wait_yield() is not None
        assert not lease.lost


async def test_the_hold_is_counted_from_a_careful_moment(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    def script(call: Call):
        yield call.granted(hold_remaining=seconds(8))
        yield from call.hold()

    scripted.scripts.append(script)
    async with arbiter.lease("ASR") as lease:
        first = lease.hold_remaining
        assert first is not None
        assert timedelta(0) < first < timedelta(seconds=8)
        await async_until(lambda: lease.hold_remaining != first)
        assert lease.hold_remaining is not None
        assert lease.hold_remaining < first


async def test_resizing_describes_the_lease_anew(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async with arbiter.lease("ASR", memory="2GiB") as lease:
        await lease.resize("1GiB", shared=True)
        assert lease.gpus[0].committed_bytes == 2**30
        assert lease.sharing == "SHARED"
        (request,) = scripted.seen["Resize"]
        assert (request.lease_id, request.fencing_token, request.memory_bytes) == ("lease-1", 7, 2**30)
        await lease.resize()
        assert not scripted.seen["Resize"][1].HasField("memory_bytes")


async def test_closing_the_arbiter_releases_what_is_still_held(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    lease = await arbiter.acquire("ASR")
    assert isinstance(lease, AsyncLease)
    await arbiter.close()
    assert lease.released is not None
    await arbiter.close()
    assert len(scripted.seen["Release"]) == 1
    with pytest.raises(RuntimeError, match="closed"):
        await arbiter.acquire("ASR")


async def test_closing_the_arbiter_leaves_detached_leases_alone(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    lease = await arbiter.acquire("ASR", ttl=60, detached=True, request_id="mine")
    assert isinstance(lease, AsyncLease)
    assert lease.detached
    await arbiter.close()
    assert not scripted.seen["Release"]
    assert not lease.lost


async def test_a_lease_outlives_neither_its_arbiter_nor_its_with_block(arbiter: AsyncArbiter):
    async with arbiter.lease("ASR") as lease:
        await arbiter.close()
        assert lease.released is not None


async def test_a_report_that_cannot_be_told_is_refused_when_it_is_made(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter
):
    async with arbiter.lease("ASR") as lease:
        assert lease.lease_id
        with pytest.raises(ValueError, match="6G"):
            lease.report(WorkReport(peak_memory="6G"))
    assert scripted.releases(1)[0].report.peak_memory_bytes == 0


async def test_a_bug_in_releasing_hides_nothing(
    arbiter: AsyncArbiter, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def bug(*_arguments: Any):
        raise AttributeError("a bug")

    monkeypatch.setattr("gpuarbiter._convert.released", bug)
    with pytest.raises(ZeroDivisionError):
        await fail_under_a_lease(arbiter)
    await async_until(lambda: "could not be released" in caplog.text)
