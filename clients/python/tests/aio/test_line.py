"""One line for all leases of a client."""

import grpc
import pytest

from fakes.polling import async_until
from fakes.scripted_arbiter import Call, ScriptedArbiter, grant_and_hold, refuse
from gpuarbiter import ArbiterUnavailable, AsyncArbiter, AsyncLease, InvalidRequest, WorkContext
from gpuarbiter._aio import backend
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import lease_pb2


async def take(arbiter: AsyncArbiter) -> AsyncLease:
    """A lease that is to be released."""
    lease = await arbiter.acquire("ASR")
    assert isinstance(lease, AsyncLease)
    return lease


async def test_all_leases_share_one_session(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    first, second = await take(arbiter), await take(arbiter)
    await second.renew()
    await second.resize("1GiB")
    for each in (first, second):
        await each.release()
    assert len(scripted.seen["Session"]) == 1
    opened = scripted.seen["Session"][0]
    assert opened.user_agent.startswith("gpu-arbiter-client-python/")
    assert [request.holder == opened.holder for request in scripted.seen["Acquire"]] == [True, True]


async def test_a_session_that_is_refused_is_the_refusal_of_each_request(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter
):
    scripted.refuse_session = lambda context: refuse(
        context, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", violations=(("holder.client_id", "too long"),)
    )
    for _ in range(2):
        with pytest.raises(InvalidRequest, match=r"holder\.client_id: too long"):
            await arbiter.acquire("ASR")
    assert len(scripted.seen["Session"]) == 2, "another may be let in"
    assert not scripted.seen["Acquire"]


async def test_a_session_that_is_not_opened_is_not_waited_for_for_ever(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gpuarbiter._aio.connection.CALL_SECONDS", 0.2)
    monkeypatch.setattr("gpuarbiter._aio.line.OPENING_SECONDS", 0.2)
    scripted.refuse_session = lambda _context: scripted.gate("open").wait(20)
    with pytest.raises(ArbiterUnavailable, match=r"did not answer within 0\.2 s"):
        await arbiter.acquire("ASR")
    scripted.open("open")
    scripted.refuse_session = None
    async with arbiter.lease("ASR"):
        assert len(scripted.seen["Session"]) == 2


async def test_who_has_less_time_does_not_end_the_opening_for_others(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    scripted.refuse_session = lambda _context: scripted.gate("open").wait(20)
    with pytest.raises(ArbiterUnavailable, match=r"did not answer within 0\.1 s"):
        await arbiter._connection.ask("renew", pb.RenewRequest(), seconds=0.1)
    scripted.open("open")
    async with arbiter.lease("ASR"):
        assert len(scripted.seen["Session"]) == 1


async def test_a_request_that_is_too_large_ends_nobody_elses_session(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async with arbiter.lease("ASR") as lease:
        with pytest.raises(InvalidRequest, match="at most 262144 are allowed"):
            await arbiter.acquire("ASR", context=WorkContext(attributes={"prompt": "x" * 300_000}))
        await lease.renew()
        assert not lease.uncertain
    assert len(scripted.seen["Acquire"]) == 1


async def test_a_reason_that_ends_the_session_is_none_for_the_leases(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async with arbiter.lease("ASR") as lease:
        line = await arbiter._connection.line()
        line._break(line._broken(InvalidRequest("somebody else's mistake", reason="INVALID_REQUEST")))
        await async_until(lambda: len(scripted.seen["Session"]) == 2 and not lease.uncertain)
        assert not lease.lost


async def test_a_listener_that_fails_does_not_keep_the_others_from_being_told(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, caplog: pytest.LogCaptureFixture
):
    def fail(_told: object) -> None:
        raise ZeroDivisionError("a bug")

    leases = [await take(arbiter) for _ in range(3)]
    leases[0]._keeper._call.listen(fail)
    scripted.stop()
    await async_until(lambda: all(lease.uncertain for lease in leases[1:]))
    assert "could not be told" in caplog.text
    scripted.start()
    await async_until(lambda: not any(lease.uncertain for lease in leases[1:]))


async def test_a_failed_call_leaves_the_others_alone(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    def failing(call: Call):
        call.context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no way")
        yield

    scripted.scripts += [grant_and_hold, failing]
    async with arbiter.lease("ASR") as lease:
        with pytest.raises(Exception, match="no way"):
            await arbiter.acquire("NMT")
        await lease.renew()
        assert not lease.uncertain
    assert len(scripted.seen["Session"]) == 1


async def test_a_lease_that_could_not_be_released_is_cancelled(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    scripted.answers["Release"] = lambda _request, context: context.abort(grpc.StatusCode.INTERNAL, "a bug")
    lease = await take(arbiter)
    await lease.close(seconds=0.1)
    await async_until(lambda: scripted.seen["CancelAcquire"])
    await async_until(scripted.calls[0].closed.is_set)


async def test_a_lease_that_was_released_is_not_cancelled(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async with arbiter.lease("ASR"):
        pass
    async with arbiter.lease("ASR"):  # whatever was written before is there by now
        pass
    assert not scripted.seen["CancelAcquire"]


async def test_closing_waits_for_a_release_that_is_under_way(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    def slow(_request: object, _context: object):
        scripted.gate("go").wait(10)
        return pb.ReleaseResponse(reason=lease_pb2.END_REASON_RELEASED)

    scripted.answers["Release"] = slow
    lease = await take(arbiter)
    releasing = backend.spawn(lease.release)
    await async_until(lambda: scripted.seen["Release"])
    closing = backend.spawn(arbiter.close)
    scripted.open("go")
    await backend.settle([releasing, closing], 10.0)
    assert lease.released is not None
    assert lease.released.reason == "RELEASED"
    assert not scripted.seen["CancelAcquire"]


async def test_what_broke_together_is_joined_over_one_new_line(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    leases = [await take(arbiter) for _ in range(5)]
    scripted.stop()
    await async_until(lambda: all(lease.uncertain for lease in leases))
    tried = len(scripted.seen["Session"])
    scripted.start()
    await async_until(lambda: not any(lease.uncertain for lease in leases))
    assert len(scripted.seen["Session"]) == tried + 1
    for lease in leases:
        await lease.release()
