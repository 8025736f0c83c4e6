"""An arbiter that cannot be reached: failing, or proceeding without a lease and saying so."""

import logging

import grpc
import pytest

from fakes.scripted_arbiter import Call, ScriptedArbiter, refuse
from gpuarbiter import ArbiterUnavailable, AsyncArbiter, AsyncLease, LeaseLost, WaitTimeout, WorkReport

PROCEED = "GPU_ARBITER_ON_UNAVAILABLE"


async def test_the_token_comes_from_the_environment(scripted: ScriptedArbiter, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GPU_ARBITER_TOKEN", "secret")
    for token in (None, "mine", ""):
        async with AsyncArbiter(scripted.address, token=token) as arbiter:
            await arbiter.check_fence("gpu:0", 7)
    assert [each.get("authorization") for each in scripted.metadata] == ["Bearer secret", "Bearer mine", None]


async def test_other_words_than_fail_and_proceed_are_refused(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match='on_unavailable is \'wait\'; write "fail" or "proceed"'):
        AsyncArbiter(on_unavailable="wait")  # type: ignore[arg-type]
    monkeypatch.setenv(PROCEED, "maybe")
    with pytest.raises(ValueError, match="GPU_ARBITER_ON_UNAVAILABLE is 'maybe'"):
        AsyncArbiter()


async def test_unless_told_it_fails(scripted: ScriptedArbiter, monkeypatch: pytest.MonkeyPatch):
    scripted.stop()
    async with AsyncArbiter(scripted.address) as arbiter:
        with pytest.raises(ArbiterUnavailable):
            await arbiter.acquire("ASR")
        assert scripted.seen["Acquire"] == []
    monkeypatch.setenv(PROCEED, "proceed")  # the argument counts more
    async with AsyncArbiter(scripted.address, on_unavailable="fail") as arbiter:
        with pytest.raises(ArbiterUnavailable):
            await arbiter.acquire("ASR")
        assert scripted.seen["Acquire"] == []


async def test_a_lease_that_is_none_says_so(scripted: ScriptedArbiter, monkeypatch: pytest.MonkeyPatch):
    scripted.stop()
    monkeypatch.setenv(PROCEED, "proceed")
    async with AsyncArbiter(scripted.address) as arbiter:
        async with arbiter.lease("ASR", memory="6GiB", request_id="mine", shared=True) as lease:
            assert isinstance(lease, AsyncLease)
            assert lease.unmanaged
            assert (lease.lease_id, lease.fencing_token, lease.gpus, lease.visible_devices) == ("", 0, (), "")
            assert (lease.task_type, lease.request_id, lease.sharing) == ("ASR", "mine", "SHARED")
            assert not any((lease.lost, lease.uncertain, lease.yield_requested, lease.detached, lease.released))
            await lease.renew(extend_hold="30s")
            await lease.resize(memory="4GiB", shared=True)
            lease.report(WorkReport(work_items=3))
            lease.note_peak("1GiB")
            assert await lease.wait_yield(0) is None
            lease.check()
        assert lease.released is not None
        assert (lease.released.reason, lease.released.already_ended) == ("", False)
        with pytest.raises(LeaseLost, match="was released"):
            await lease.renew()
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
        async with arbiter.lease("ASR") as lease:
            assert lease.visible_devices == "1"


async def test_release_is_a_word_and_no_call(scripted: ScriptedArbiter):
    scripted.stop()
    async with AsyncArbiter(scripted.address, on_unavailable="proceed") as arbiter:
        lease = await arbiter.acquire("ASR")
        assert isinstance(lease, AsyncLease)
        scripted.start()
        assert await lease.release() == await lease.release()
        await lease.close()
    assert scripted.seen["Release"] == []


async def test_one_warning_for_an_outage(
    scripted: ScriptedArbiter, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    # The first request of an outage may be sent before the client has noticed it.
    monkeypatch.setattr("gpuarbiter._aio.asking.OUTAGE_SECONDS", 0.2)

    async def ask() -> bool:
        async with arbiter.lease("ASR") as lease:
            return lease.unmanaged

    caplog.set_level(logging.WARNING, "gpuarbiter")
    async with AsyncArbiter(scripted.address, on_unavailable="proceed") as arbiter:
        assert not await ask()
        for _outage in range(2):
            scripted.stop()
            assert [await ask() for _ in range(3)] == [True, True, True]
            scripted.start()
            while await ask():  # until the channel has noticed; requests go on meanwhile, without a word
                pass
    said = [record.message for record in caplog.records]
    assert [message.split(":")[0] for message in said] == [
        "going on WITHOUT leases, since the arbiter is unavailable",
        "the arbiter is back",
    ] * 2


async def test_a_refusal_is_an_answer(scripted: ScriptedArbiter):
    def refusing(call: Call):
        refuse(call.context, grpc.StatusCode.DEADLINE_EXCEEDED, "WAIT_TIMEOUT")
        yield  # makes it a generator

    scripted.scripts.append(refusing)
    async with AsyncArbiter(scripted.address, on_unavailable="proceed") as arbiter:
        with pytest.raises(WaitTimeout):
            await arbiter.acquire("ASR")
        assert len(scripted.seen["Acquire"]) == 1


async def test_a_measured_peak_is_reported(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async with arbiter.lease("ASR") as lease:
        lease.note_peak("2GiB")
        lease.note_peak(5)
    async with arbiter.lease("ASR") as lease:
        lease.note_peak("2GiB")
        lease.report(WorkReport(work_items=3))
    async with arbiter.lease("ASR") as lease:
        lease.note_peak("2GiB")
        lease.report(WorkReport(peak_memory="1GiB"))
    async with arbiter.lease("ASR") as lease:
        lease.note_peak("2GiB")
        await lease.release()
    reports = [each.report for each in scripted.seen["Release"]]
    assert [each.peak_memory_bytes for each in reports] == [2**31, 2**31, 2**30, 2**31]
    assert reports[1].work_items == 3
