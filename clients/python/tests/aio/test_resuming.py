"""The line breaks, or the arbiter restarts, beneath a request; and what an arbiter that is back says of a lease."""

from pathlib import Path

import grpc
import pytest

import gpuarbiter
from fakes.polling import async_until
from fakes.scripted_arbiter import Call, ScriptedArbiter, grant_and_hold, refuse, seconds
from gpuarbiter import AsyncArbiter, Queued

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def cut(call: Call):
    """Breaks off before any answer."""
    call.context.abort(UNAVAILABLE, "cut")
    yield


def queued_and_cut(call: Call):
    """Breaks off while it waits."""
    yield call.queued()
    call.context.abort(UNAVAILABLE, "cut")


def without_journal(call: Call):
    """Cannot grant just now."""
    refuse(call.context, UNAVAILABLE, "JOURNAL_UNAVAILABLE")
    yield


def breaking(call: Call):
    """Grants, and breaks off when told."""
    yield call.granted()
    call.wait("break")
    call.context.abort(UNAVAILABLE, "cut")


async def test_a_request_whose_answer_was_lost_is_asked_again(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    scripted.scripts += [cut, cut]
    async with arbiter.lease("ASR") as lease:
        assert lease.lease_id == "lease-1"
    first, second, third = scripted.seen["Acquire"]
    assert first == second == third, "the same request, by the same request_id"


async def test_a_lease_that_was_granted_long_ago_is_counted_from_the_last_sending(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter
):
    def joined(call: Call):
        yield call.granted(hold_remaining=seconds(100), queue_wait=seconds(0.05))
        yield from call.hold()

    scripted.scripts += [cut, joined]
    began = gpuarbiter.now()
    async with arbiter.lease("ASR") as lease:
        # The pause before the second sending lies in between; from the first one, it would be missing here.
        assert lease.hold_remaining is not None
        left = 100 - lease.hold_remaining.total_seconds()
        assert left < gpuarbiter.now() - began - 0.1


@pytest.mark.parametrize("max_wait", [0, 0.2])
async def test_a_short_wait_is_asked_again_for_a_moment(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, monkeypatch: pytest.MonkeyPatch, max_wait: float
):
    monkeypatch.setattr("gpuarbiter._aio.asking.LEAST_OUTAGE_SECONDS", 0.3)
    scripted.scripts += [cut] * 100
    with pytest.raises(gpuarbiter.ArbiterUnavailable, match="cut"):
        await arbiter.acquire("ASR", max_wait=max_wait)
    assert 1 < len(scripted.seen["Acquire"]) < 6


async def test_a_wait_outlasts_an_outage_that_its_max_wait_allows(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gpuarbiter._aio.asking.OUTAGE_SECONDS", 0.0)
    monkeypatch.setattr("gpuarbiter._aio.asking.LEAST_OUTAGE_SECONDS", 0.0)
    scripted.scripts += [queued_and_cut, cut, cut]
    async with arbiter.lease("ASR", max_wait=60):
        assert len(scripted.seen["Acquire"]) == 4
    scripted.scripts += [queued_and_cut]
    with pytest.raises(gpuarbiter.ArbiterUnavailable, match="cut"):
        await arbiter.acquire("ASR")


async def test_an_outage_of_a_request_that_nobody_queued_has_a_bound_of_its_own(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gpuarbiter._aio.asking.OUTAGE_SECONDS", 0.0)
    monkeypatch.setattr("gpuarbiter._aio.asking.LEAST_OUTAGE_SECONDS", 0.0)
    scripted.scripts += [cut]
    with pytest.raises(gpuarbiter.ArbiterUnavailable, match="cut"):
        await arbiter.acquire("ASR", max_wait=60)


async def test_a_wait_goes_on_while_the_journal_cannot_be_written(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    places: list[Queued] = []
    scripted.scripts += [queued_and_cut, without_journal, queued_and_cut]
    async with arbiter.lease("ASR", on_queued=places.append):
        assert len(places) == 2
    scripted.scripts += [without_journal]
    with pytest.raises(gpuarbiter.JournalUnavailable):
        await arbiter.acquire("ASR")


async def test_a_request_of_an_arbiter_that_was_closed_is_not_asked_again(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter
):
    def closing(call: Call):
        yield call.queued()
        call.wait("never")

    async def close(_queued: Queued):
        await arbiter.close()

    scripted.scripts += [closing]
    with pytest.raises(gpuarbiter.ArbiterUnavailable):
        await arbiter.acquire("ASR", on_queued=close)
    assert len(scripted.seen["Acquire"]) == 1


async def test_a_lease_is_joined_though_the_journal_cannot_be_written_at_first(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter
):
    scripted.scripts += [breaking, without_journal, grant_and_hold]
    async with arbiter.lease("ASR") as lease:
        scripted.open("break")
        await async_until(lambda: len(scripted.seen["Acquire"]) == 3 and not lease.uncertain)
        assert not lease.lost


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "CLIENT_LIMIT"),
        (grpc.StatusCode.FAILED_PRECONDITION, "INFEASIBLE"),
        (grpc.StatusCode.NOT_FOUND, "UNKNOWN_GPU"),
        (UNAVAILABLE, "GPU_UNAVAILABLE"),
    ],
)
async def test_what_is_said_to_a_new_request_means_that_the_lease_is_not_known(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, code: grpc.StatusCode, reason: str
):
    def anew(call: Call):
        refuse(call.context, code, reason, "as if it were new")
        yield

    scripted.scripts += [breaking, anew]
    async with arbiter.lease("ASR") as lease:
        scripted.open("break")
        await async_until(lambda: lease.lost)
        assert lease.lost_reason == "NOT_RECOVERED"
        assert lease.lost_detail == "the arbiter does not know the lease any more (as if it were new)"


async def test_a_process_is_attested_anew_for_an_arbiter_that_restarted(
    scripted: ScriptedArbiter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    proofs = iter(["of the first start", "of the second", "", "of the third"])
    monkeypatch.setattr("gpuarbiter._holder.read_attestation", lambda _path: next(proofs))
    (tmp_path / "arbiter.sock.attest").touch()
    scripted.stop()
    scripted.start(f"unix:{tmp_path}/arbiter.sock")

    def queued_and_silent(call: Call):
        yield call.queued()

    def granted_and_silent(call: Call):
        yield call.granted()
        call.wait("break")

    def silent(_call: Call):
        yield from ()

    # Who stops in the middle of a call takes the session along.
    scripted.scripts += [queued_and_silent, granted_and_silent, silent, grant_and_hold]
    async with AsyncArbiter(f"unix:{tmp_path}/arbiter.sock") as arbiter, arbiter.lease("ASR") as lease:
        scripted.open("break")
        await async_until(lambda: len(scripted.seen["Acquire"]) == 4 and not lease.uncertain)
    assert [request.holder.attestation for request in scripted.seen["Acquire"]] == [
        "of the first start",
        "of the second",
        "of the second",  # nobody answered at the socket
        "of the third",
    ]


async def test_what_is_given_up_while_the_arbiter_is_away_is_taken_back_when_it_returns(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter
):
    class GivenUp(BaseException):
        """The program's own."""

    def waiting(call: Call):
        yield call.queued()
        call.wait("never")

    async def give_up(_queued: Queued):
        scripted.stop()
        raise GivenUp

    scripted.scripts += [waiting]
    with pytest.raises(GivenUp):
        await arbiter.acquire("ASR", ttl="60s", request_id="mine", on_queued=give_up)
    assert not scripted.seen["Release"]
    scripted.start()
    await async_until(lambda: scripted.seen["Release"])
    assert scripted.seen["Release"][0].request_id == "mine"


async def test_what_may_have_become_a_lease_is_taken_back_when_its_request_has_failed(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gpuarbiter._aio.asking.OUTAGE_SECONDS", 0.2)

    def waiting(call: Call):
        yield call.queued()
        call.wait("never")

    scripted.scripts += [waiting]
    with pytest.raises(gpuarbiter.ArbiterUnavailable):
        await arbiter.acquire("ASR", ttl="60s", request_id="mine", on_queued=lambda _queued: scripted.stop())
    scripted.start()
    await async_until(lambda: scripted.seen["Release"])
    assert scripted.seen["Release"][0].request_id == "mine"
