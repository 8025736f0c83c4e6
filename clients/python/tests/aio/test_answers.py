"""Declines and errors: every answer that is not a lease."""

from datetime import timedelta
from typing import Any

import grpc
import pytest

import gpuarbiter
from fakes.polling import async_until
from fakes.scripted_arbiter import Call, ScriptedArbiter, refuse, seconds
from gpuarbiter import AsyncArbiter, AsyncLease, FallbackToCpu, Queued, Skipped

STATUS = grpc.StatusCode


def declining(decision: str):
    def script(call: Call):
        yield call.queued()
        yield call.declined(decision, waited=seconds(0.4), retry_after=seconds(2), detail="ASR since 3 s")

    return script


def failing(code: grpc.StatusCode, reason: str, **facts: Any):
    def script(call: Call):
        refuse(call.context, code, reason, **facts)
        yield  # makes it a generator

    return script


@pytest.mark.parametrize(("decision", "kind"), [("SKIP", Skipped), ("FALLBACK_CPU", FallbackToCpu)])
async def test_a_decline_is_returned_by_acquire_and_raised_by_lease(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, decision: str, kind: type
):
    scripted.scripts += [declining(decision), declining(decision)]
    match await arbiter.acquire("ASR"):
        case AsyncLease():
            pytest.fail("there was no lease")
        case Skipped() | FallbackToCpu() as outcome:
            assert type(outcome) is kind
            assert outcome.reason == "GPU_BUSY"
            assert outcome.waited == timedelta(seconds=0.4)
            assert outcome.retry_after == timedelta(seconds=2)
            assert outcome.detail == "ASR since 3 s"
            assert outcome.blockers == ()
    manager = arbiter.lease("ASR")
    with pytest.raises(kind, match="ASR since 3 s"):
        await manager.__aenter__()
    assert not scripted.seen["Release"]
    await async_until(lambda: all(call.closed.is_set() for call in scripted.calls))


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (STATUS.INVALID_ARGUMENT, "INVALID_REQUEST", gpuarbiter.InvalidRequest),
        (STATUS.NOT_FOUND, "UNKNOWN_GPU", gpuarbiter.UnknownGpu),
        (STATUS.NOT_FOUND, "UNKNOWN_LEASE", gpuarbiter.UnknownLease),
        (STATUS.FAILED_PRECONDITION, "INFEASIBLE", gpuarbiter.Infeasible),
        (STATUS.RESOURCE_EXHAUSTED, "QUEUE_FULL", gpuarbiter.QueueFull),
        (STATUS.RESOURCE_EXHAUSTED, "CLIENT_LIMIT", gpuarbiter.ClientLimit),
        (STATUS.RESOURCE_EXHAUSTED, "WAIT_TIMEOUT", gpuarbiter.WaitTimeout),
        (STATUS.UNAVAILABLE, "SHUTDOWN", gpuarbiter.ShuttingDown),
        (STATUS.ABORTED, "STALE_TOKEN", gpuarbiter.StaleToken),
        (STATUS.ALREADY_EXISTS, "REQUEST_ID_CONFLICT", gpuarbiter.RequestIdConflict),
        (STATUS.PERMISSION_DENIED, "NOT_PERMITTED", gpuarbiter.NotPermitted),
        (STATUS.UNAUTHENTICATED, "UNAUTHENTICATED", gpuarbiter.Unauthenticated),
        (STATUS.UNAVAILABLE, "JOURNAL_UNAVAILABLE", gpuarbiter.JournalUnavailable),
        (STATUS.UNAVAILABLE, "GPU_UNAVAILABLE", gpuarbiter.GpuUnavailable),
        (STATUS.FAILED_PRECONDITION, "LEASE_ENDED", gpuarbiter.LeaseEnded),
        (STATUS.FAILED_PRECONDITION, "RESIZE_REFUSED", gpuarbiter.ResizeRefused),
        (STATUS.ABORTED, "SUPERSEDED", gpuarbiter.Superseded),
        (STATUS.ABORTED, "CANCELLED", gpuarbiter.Cancelled),
        (STATUS.OUT_OF_RANGE, "UNRECOGNIZED_99", gpuarbiter.ArbiterError),
    ],
)
async def test_every_reason_is_raised_as_its_class(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, code: grpc.StatusCode, reason: str, kind: type
):
    scripted.scripts.append(
        failing(
            code, reason, message="because", metadata={"position": "3"}, retry_after=1.5, violations=(("gpu", "no"),)
        )
    )
    with pytest.raises(gpuarbiter.ArbiterError, match="because") as caught:
        await arbiter.acquire("ASR")
    error = caught.value
    assert type(error) is kind
    assert (error.reason, error.code, error.message) == (reason, code.name, "because")
    assert error.metadata == {"position": "3"}
    assert error.retry_after == timedelta(seconds=1.5)
    assert error.violations == (gpuarbiter.Violation("gpu", "no"),)
    assert str(error) == "because (gpu: no)"
    assert not scripted.seen["Release"], "the arbiter has done with a request that it refused"


async def test_details_that_cannot_be_decoded_cost_only_the_details(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    def answer(_request: Any, context: Any):
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff\xff"), ("other", "thing")))
        context.abort(STATUS.FAILED_PRECONDITION, "no way")

    scripted.answers["CheckFence"] = answer
    with pytest.raises(gpuarbiter.ArbiterError, match="no way") as caught:
        await arbiter.check_fence("gpu:0", 7)
    assert type(caught.value) is gpuarbiter.ArbiterError
    assert (caught.value.reason, caught.value.code) == ("", "FAILED_PRECONDITION")


async def test_an_arbiter_that_is_not_there_is_unavailable_and_named(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    scripted.stop()
    with pytest.raises(gpuarbiter.ArbiterUnavailable, match=f"arbiter at {scripted.address} cannot be reached"):
        await arbiter.acquire("ASR")
    with pytest.raises(gpuarbiter.ArbiterUnavailable, match="cannot be reached"):
        await arbiter.check_fence("gpu:0", 7)
    with pytest.raises(gpuarbiter.ArbiterUnavailable, match="cannot be reached"):
        await arbiter.snapshot()


async def test_a_session_that_ends_without_an_answer_is_opened_again(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    def script(_call: Call):
        yield from ()

    scripted.scripts.append(script)
    async with arbiter.lease("ASR"):
        first, second = scripted.seen["Acquire"]
        assert first == second
    assert len(scripted.seen["Session"]) == 2


async def test_the_request_id_of_a_lease_that_has_ended_gives_none(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    def script(call: Call):
        yield call.ended("TTL_EXPIRED")

    scripted.scripts.append(script)
    with pytest.raises(gpuarbiter.LeaseEnded, match="has ended: TTL_EXPIRED") as caught:
        await arbiter.acquire("ASR", request_id="old")
    assert caught.value.metadata == {"end_reason": "TTL_EXPIRED"}


async def test_a_wait_goes_on_through_a_restart(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    def waiting(call: Call):
        yield call.queued(4)
        call.wait("never")

    scripted.scripts.append(waiting)
    restarted = []

    def restart(_queued: Queued):
        if not restarted:
            restarted.append(True)
            scripted.stop()
            scripted.start()

    async with arbiter.lease("ASR", on_queued=restart) as lease:
        assert not lease.lost
    first, second = scripted.seen["Acquire"]
    assert first == second, "the same request, by the same request_id"


async def test_a_wait_ends_when_the_arbiter_stays_away(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gpuarbiter._aio.asking.OUTAGE_SECONDS", 0.3)

    def waiting(call: Call):
        yield call.queued(4)
        call.wait("never")

    scripted.scripts.append(waiting)
    with pytest.raises(gpuarbiter.ArbiterUnavailable):
        await arbiter.acquire("ASR", on_queued=lambda _queued: scripted.stop())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": "6G"}, "6G"),
        ({"max_wait": -1}, "out of range"),
        ({"busy_policy": "LATER"}, "one of WAIT, SKIP, FALLBACK_CPU"),
        ({"placement": "NOWHERE"}, "one of LEAST_LOADED"),
        ({"detached": True}, "detached needs a ttl"),
    ],
)
async def test_what_cannot_be_asked_for_is_refused_before_anything_is_sent(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, options: Any, message: str
):
    with pytest.raises(ValueError, match=message):
        await arbiter.acquire("ASR", **options)
    assert not scripted.seen["Acquire"]
