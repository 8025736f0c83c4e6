"""The ttl, renewed in the background and by hand."""

from datetime import timedelta
from typing import Any

import grpc
import pytest

from fakes.polling import async_until
from fakes.scripted_arbiter import ScriptedArbiter, refuse, seconds
from gpuarbiter import ArbiterError, AsyncArbiter, LeaseEnded, LeaseLost, YieldRequest
from gpuarbiter._aio.connection import AsyncConnection
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import lease_pb2

PREEMPTED = pb.YieldRequested(reason=lease_pb2.YIELD_REASON_PREEMPTED, grace=seconds(3))


async def test_a_ttl_is_renewed_in_the_background(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async with arbiter.lease("ASR", ttl="150ms") as lease:
        await async_until(lambda: len(scripted.seen["Renew"]) >= 3)
        request = scripted.seen["Renew"][0]
        assert (request.lease_id, request.fencing_token) == ("lease-1", 7)
        assert not request.HasField("extend_hold")
        await async_until(lambda: lease.ttl_remaining and lease.ttl_remaining > timedelta(seconds=50))
        assert not lease.lost


async def test_without_a_ttl_nothing_is_renewed(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async with arbiter.lease("ASR") as lease:
        assert lease.ttl_remaining is None
        await lease.renew(extend_hold="30s")
        assert [request.extend_hold for request in scripted.seen["Renew"]] == [seconds(30)]


async def test_a_renewal_brings_a_yield_request_that_was_missed_and_says_it_once(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter
):
    scripted.answers["Renew"] = lambda _request, _context: pb.RenewResponse(pending_yield=PREEMPTED)
    heard: list[YieldRequest] = []
    async with (
        arbiter.lease("ASR", on_yield=lambda _lease, asked: heard.append(asked)) as lease,
    ):
        await lease.renew()
        await lease.renew()
        assert await lease.wait_yield() is not None
        await async_until(lambda: heard)
        assert [asked.reason for asked in heard] == ["PREEMPTED"]


@pytest.mark.parametrize(
    ("reason", "metadata", "lost_reason", "kind"),
    [
        ("LEASE_ENDED", {"end_reason": "TTL_EXPIRED"}, "TTL_EXPIRED", LeaseEnded),
        ("UNKNOWN_LEASE", None, "UNKNOWN_LEASE", LeaseLost),
        ("STALE_TOKEN", None, "STALE_TOKEN", LeaseLost),
    ],
)
async def test_a_refused_renewal_is_a_loss(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, reason: str, metadata: Any, lost_reason: str, kind: type
):
    scripted.answers["Renew"] = lambda _request, context: refuse(
        context, grpc.StatusCode.FAILED_PRECONDITION, reason, metadata=metadata
    )
    async with arbiter.lease("ASR") as lease:
        with pytest.raises(LeaseLost) as caught:
            await lease.renew()
        assert type(caught.value) is kind
        assert caught.value.reason == reason
        assert lease.lost
        assert lease.lost_reason == lost_reason


async def test_a_refused_renewal_in_the_background_is_a_loss(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    scripted.answers["Renew"] = lambda _request, context: refuse(
        context, grpc.StatusCode.FAILED_PRECONDITION, "LEASE_ENDED", metadata={"end_reason": "TTL_EXPIRED"}
    )
    async with arbiter.lease("ASR", ttl="100ms") as lease:
        await async_until(lambda: lease.lost)
        assert lease.lost_reason == "TTL_EXPIRED"


async def test_a_refused_resize_changes_nothing(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    scripted.answers["Resize"] = lambda _request, context: refuse(
        context, grpc.StatusCode.FAILED_PRECONDITION, "RESIZE_REFUSED"
    )
    async with arbiter.lease("ASR", memory="1GiB") as lease:
        with pytest.raises(ArbiterError) as caught:
            await lease.resize("2GiB")
        assert caught.value.reason == "RESIZE_REFUSED"
        assert lease.gpus[0].declared_bytes == 2**30
        assert not lease.lost


async def test_a_failed_renewal_is_tried_again(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, caplog: pytest.LogCaptureFixture
):
    failures = iter(range(2))

    def unreliable(_request: Any, context: Any):
        if next(failures, None) is not None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        return pb.RenewResponse(ttl_remaining=seconds(60))

    scripted.answers["Renew"] = unreliable
    async with arbiter.lease("ASR", ttl="300ms") as lease:
        await async_until(lambda: lease.ttl_remaining and lease.ttl_remaining > timedelta(seconds=50))
        assert not lease.lost
        assert not lease.uncertain, "the stream carries it"
    assert "not renewed" in caplog.text


async def test_a_detached_lease_lives_by_its_renewals(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    fail = []

    def renewing(_request: Any, context: Any):
        if fail:
            context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        return pb.RenewResponse(ttl_remaining=seconds(60))

    scripted.answers["Renew"] = renewing
    async with (
        arbiter.lease("ASR", ttl="150ms", detached=True, request_id="mine") as lease,
    ):
        await async_until(scripted.calls[0].closed.is_set, "for the stream to be closed")
        await async_until(lambda: scripted.seen["Renew"])
        assert not lease.uncertain
        fail.append(True)
        await async_until(lambda: lease.uncertain)
        assert not lease.lost
        fail.clear()
        await async_until(lambda: not lease.uncertain)
        assert not lease.lost
    assert len(scripted.seen["Acquire"]) == 1
    assert len(scripted.seen["Release"]) == 1


async def test_a_detached_lease_whose_renewals_fail_for_its_ttl_is_lost(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter
):
    scripted.answers["Renew"] = lambda _request, context: context.abort(grpc.StatusCode.UNAVAILABLE, "away")
    async with (
        arbiter.lease("ASR", ttl="200ms", detached=True, request_id="mine") as lease,
    ):
        await async_until(lambda: lease.lost)
        assert lease.lost_reason == "TTL_EXPIRED"


async def test_a_renewal_that_hangs_does_not_hide_that_the_ttl_is_over(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, monkeypatch: pytest.MonkeyPatch
):
    allowed: list[float] = []
    asked = AsyncConnection.ask

    async def ask(self: AsyncConnection, kind: str, request: Any, *, seconds: float = 10.0) -> Any:
        if kind == "renew":
            allowed.append(seconds)
        return await asked(self, kind, request, seconds=seconds)

    monkeypatch.setattr(AsyncConnection, "ask", ask)
    scripted.answers["Renew"] = lambda _request, _context: scripted.gate("never").wait(20)
    async with (
        arbiter.lease("ASR", ttl="300ms", detached=True, request_id="mine") as lease,
    ):
        await async_until(lambda: lease.lost)
        assert lease.lost_reason == "TTL_EXPIRED"
    assert allowed
    assert max(allowed) <= 0.3
    scripted.open("never")
