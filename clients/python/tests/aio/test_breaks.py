"""The line to the arbiter breaks under a lease."""

from typing import Any

import grpc
import pytest

from fakes.polling import async_until
from fakes.scripted_arbiter import Call, ScriptedArbiter, grant_and_hold, refuse, seconds
from gpuarbiter import ArbiterUnavailable, AsyncArbiter
from gpuarbiter._aio.keeper import AsyncKeeper
from gpuarbiter.v1 import lease_pb2


def breaking(call: Call):
    """Grants, and breaks off when told."""
    yield call.granted(hold_remaining=seconds(100))
    call.wait("break")
    call.context.abort(grpc.StatusCode.UNAVAILABLE, "cut")


async def test_a_broken_stream_is_joined_again_by_the_request_id(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    def joined(call: Call):
        call.wait("join")
        yield call.granted(hold_remaining=seconds(50))
        yield call.yield_requested()
        yield from call.hold()

    scripted.scripts += [breaking, joined]
    async with arbiter.lease("ASR", memory="1GiB") as lease:
        scripted.open("break")
        await async_until(lambda: lease.uncertain)
        assert not lease.lost
        lease.check()
        scripted.open("join")
        await async_until(lambda: not lease.uncertain)
        assert not lease.lost
        assert lease.hold_remaining is not None
        assert lease.hold_remaining.total_seconds() <= 50
        assert await lease.wait_yield() is not None, "the stream is followed again"
    first, again = scripted.seen["Acquire"]
    assert again.request_id == first.request_id
    assert again.gpu == first.gpu
    assert (again.busy_policy, again.max_wait) == (lease_pb2.BUSY_POLICY_WAIT, seconds(0)), "it must not queue anew"
    await async_until(lambda: len(scripted.seen["Release"]) == 1)


async def test_a_restarted_arbiter_is_found_again(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async with arbiter.lease("ASR") as lease:
        scripted.stop()
        await async_until(lambda: lease.uncertain)
        scripted.start()
        await async_until(lambda: not lease.uncertain)
        assert not lease.lost


async def test_a_stream_that_ends_without_a_word_is_a_break(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    def silent(call: Call):
        yield call.granted()

    scripted.scripts += [silent, grant_and_hold]
    async with arbiter.lease("ASR") as lease:
        await async_until(lambda: len(scripted.seen["Acquire"]) == 2 and not lease.uncertain)
        assert not lease.lost


async def test_after_the_grace_the_lease_is_lost(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gpuarbiter._record.DISCONNECT_GRACE_SECONDS", 0.3)
    monkeypatch.setattr("gpuarbiter._aio.lease._LOST_RELEASE_SECONDS", 0.1)
    lost = []
    async with (
        arbiter.lease("ASR", on_lost=lost.append) as lease,
    ):
        scripted.stop()
        await async_until(lambda: lost)
        assert lost == [lease]
        assert lease.lost_reason == "DISCONNECTED"
        assert not lease.uncertain


async def test_a_join_that_is_never_answered_does_not_hold_up_the_loss(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gpuarbiter._record.DISCONNECT_GRACE_SECONDS", 0.3)

    def mute(call: Call):
        call.wait("never")
        yield from ()

    scripted.scripts += [breaking, mute]
    async with arbiter.lease("ASR") as lease:
        scripted.open("break")
        await async_until(lambda: lease.lost)
        assert lease.lost_reason == "DISCONNECTED"
        await async_until(scripted.calls[1].closed.is_set, "for the join to be cancelled")
    assert [request.lease_id for request in scripted.seen["Release"]] == ["lease-1"], "in case that it is held still"


async def test_a_ttl_counts_instead_of_the_grace(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gpuarbiter._aio.lease._LOST_RELEASE_SECONDS", 0.1)
    scripted.answers["Renew"] = lambda _request, context: context.abort(grpc.StatusCode.UNAVAILABLE, "away")
    async with arbiter.lease("ASR", ttl=0.5) as lease:
        scripted.stop()
        await async_until(lambda: lease.lost)
        assert lease.lost_reason == "TTL_EXPIRED"


@pytest.mark.parametrize(
    ("code", "reason", "metadata", "lost_reason"),
    [
        (grpc.StatusCode.ABORTED, "SUPERSEDED", None, "SUPERSEDED"),
        (grpc.StatusCode.FAILED_PRECONDITION, "LEASE_ENDED", {"end_reason": "HOLDER_DIED"}, "HOLDER_DIED"),
        (grpc.StatusCode.FAILED_PRECONDITION, "LEASE_ENDED", None, "LEASE_ENDED"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "WAIT_TIMEOUT", None, "NOT_RECOVERED"),
    ],
)
async def test_a_stream_that_ends_for_a_reason_is_a_loss(
    scripted: ScriptedArbiter,
    arbiter: AsyncArbiter,
    code: grpc.StatusCode,
    reason: str,
    metadata: dict[str, str] | None,
    lost_reason: str,
):
    def refusing(call: Call):
        yield call.granted()
        call.wait("refuse")
        refuse(call.context, code, reason, metadata=metadata)

    scripted.scripts.append(refusing)
    async with arbiter.lease("ASR") as lease:
        scripted.open("refuse")
        await async_until(lambda: lease.lost)
        assert lease.lost_reason == lost_reason
    assert len(scripted.seen["Acquire"]) == 1


async def test_what_another_took_over_is_not_released(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    def superseded(call: Call):
        yield call.granted()
        refuse(call.context, grpc.StatusCode.ABORTED, "SUPERSEDED")

    scripted.scripts.append(superseded)
    async with arbiter.lease("ASR") as lease:
        await async_until(lambda: lease.lost)
    assert lease.released is not None
    assert (lease.released.reason, lease.released.already_ended) == ("SUPERSEDED", True)
    assert not scripted.seen["Release"]


async def test_another_lease_in_place_of_ours_is_a_loss_and_given_back(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter
):
    def other(call: Call):
        yield call.granted(lease_id="lease-2", fencing_token=9)
        yield from call.hold()

    scripted.scripts += [breaking, other]
    async with arbiter.lease("ASR") as lease:
        scripted.open("break")
        await async_until(lambda: lease.lost)
        assert lease.lost_reason == "NOT_RECOVERED"
        await async_until(lambda: scripted.seen["Release"])
        assert scripted.seen["Release"][0].lease_id == "lease-2"
        assert scripted.seen["Release"][0].fencing_token == 9


@pytest.mark.parametrize("answer", ["queued", "declined"])
async def test_a_queue_in_place_of_our_lease_is_a_loss_and_left(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, answer: str
):
    def anew(call: Call):
        yield getattr(call, answer)()
        call.wait("never")

    scripted.scripts += [breaking, anew]
    async with arbiter.lease("ASR") as lease:
        scripted.open("break")
        await async_until(lambda: lease.lost)
        assert lease.lost_reason == "NOT_RECOVERED"
        await async_until(lambda: scripted.seen["Release"])
        assert scripted.seen["Release"][0].request_id == lease.request_id


async def test_the_end_is_learnt_on_joining_too_late(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    def ended(call: Call):
        yield call.ended("TTL_EXPIRED")

    scripted.scripts += [breaking, ended]
    async with arbiter.lease("ASR") as lease:
        scripted.open("break")
        await async_until(lambda: lease.lost)
        assert lease.lost_reason == "TTL_EXPIRED"


async def test_a_release_goes_through_while_the_line_is_broken(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    answers = iter([True, False])

    def once_away(_request: Any, context: Any):
        from gpuarbiter.v1 import gpu_arbiter_pb2 as pb

        if next(answers):
            context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        return pb.ReleaseResponse(reason=lease_pb2.END_REASON_RELEASED)

    scripted.answers["Release"] = once_away
    async with arbiter.lease("ASR") as lease:
        pass
    await async_until(lambda: lease.released)
    assert len(scripted.seen["Release"]) == 2


async def test_a_release_that_nobody_takes_fails_in_bounded_time(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gpuarbiter._aio.lease.RELEASE_SECONDS", 0.3)
    async with arbiter.lease("ASR") as lease:
        scripted.stop()
        with pytest.raises(ArbiterUnavailable):
            await lease.release()
        assert lease.released is None
        assert not lease.lost


async def test_a_stranger_that_cannot_be_given_back_is_only_logged(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, caplog: pytest.LogCaptureFixture
):
    def other(call: Call):
        yield call.granted(lease_id="lease-2")
        yield from call.hold()

    scripted.answers["Release"] = lambda _request, context: context.abort(grpc.StatusCode.NOT_FOUND, "whose?")
    scripted.scripts += [breaking, other]
    async with arbiter.lease("ASR") as lease:
        scripted.open("break")
        await async_until(lambda: "could not be given back: whose?" in caplog.text)
        assert lease.lost


async def test_a_bug_in_following_a_lease_is_a_loss(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def script(call: Call):
        yield call.granted()
        yield call.yield_requested()
        yield from call.hold()

    def bug(*_arguments: Any):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("gpuarbiter._record.LeaseRecord.yield_asked", bug)
    scripted.scripts.append(script)
    async with arbiter.lease("ASR") as lease:
        await async_until(lambda: lease.lost)
        assert (lease.lost_reason, lease.lost_detail) == ("UNFOLLOWED", "a bug")
        await async_until(scripted.calls[0].closed.is_set)
    assert "following it failed" in caplog.text
    assert len(scripted.seen["Release"]) == 1, "the arbiter still holds it"


async def test_however_often_the_line_breaks_one_watches_the_time_that_is_left(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, monkeypatch: pytest.MonkeyPatch
):
    watches: list[AsyncKeeper] = []
    watch = AsyncKeeper._give_up_in_time

    async def watching(self: AsyncKeeper) -> None:
        watches.append(self)
        await watch(self)

    monkeypatch.setattr(AsyncKeeper, "_give_up_in_time", watching)

    def breaking_again(call: Call):
        yield call.granted()
        call.wait(f"break {len(scripted.calls)}")
        call.context.abort(grpc.StatusCode.UNAVAILABLE, "cut")

    scripted.scripts += [breaking_again] * 3
    async with arbiter.lease("ASR", ttl="60s") as lease:
        for number in range(1, 4):
            scripted.open(f"break {number}")
            await async_until(lambda count=number + 1: len(scripted.calls) == count and not lease.uncertain)
        assert not lease.lost
    assert len(watches) == 1
