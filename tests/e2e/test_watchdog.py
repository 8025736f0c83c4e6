"""A lease that is held for too long: told, asked, ended, as its policy says; and its holder finds out."""

import asyncio
from collections.abc import Callable

import pytest

from e2e.harness.client import Client, event_names
from gpuarbiter import AsyncArbiter, AsyncLease, LeaseLost
from gpuarbiter.v1 import lease_pb2
from support.messages import in_seconds
from support.process import Arbiterd
from support.refusals import refusal

Start = Callable[..., Arbiterd]
Connect = Callable[[Arbiterd], Client]

SHORT = "policies.SHORT={max_hold: 200ms, watchdog: {grace: 300ms, revoke: true}}"


async def test_a_lease_past_its_max_hold_is_told_asked_and_revoked(arbiterd: Start, connect: Connect):
    client = connect(arbiterd(SHORT))
    stream = client.acquire("SHORT", client="overstays", request_id="job-1")
    lease = await stream.granted()
    # It counts from the decision; that it is told once it is on the disk costs the holder a little of it.
    assert 0 < in_seconds(lease.hold_remaining) <= 0.2
    waiting = client.acquire(client="next")
    await waiting.waits_for("GPU_BUSY")
    asked = await stream.next("yield_requested")
    assert asked.reason == lease_pb2.YIELD_REASON_MAX_HOLD
    assert in_seconds(asked.grace) == pytest.approx(0.3)
    ended = await stream.next("ended")
    assert (ended.reason, ended.cause) == (lease_pb2.END_REASON_MAX_HOLD, lease_pb2.YIELD_REASON_MAX_HOLD)
    assert in_seconds(ended.held) >= 0.5
    await stream.ends()
    assert (await waiting.granted()).holder.client_id == "next"
    names = event_names(await client.events(lease_id=lease.lease_id))
    assert [name for name in names if "COOLDOWN" not in name] == [
        "GRANTED",
        "HOLD_EXCEEDED",
        "YIELD_REQUESTED",
        "ENDED",
    ]
    assert (await client.gpu()).stats.watchdog_total == 1
    # What its holder does late.
    for late in ({"lease_id": lease.lease_id}, {"request_id": "job-1"}):
        released = await client.release(**late)
        assert released.already_ended
        assert released.reason == lease_pb2.END_REASON_MAX_HOLD
    refused = await refusal(client.renew(lease))
    assert (refused.code.name, refused.reason) == ("FAILED_PRECONDITION", "LEASE_ENDED")
    assert refused.metadata == {"end_reason": "MAX_HOLD"}


async def test_the_client_library_reports_the_lease_lost(arbiterd: Start):
    arbiter = arbiterd(SHORT)
    lost: asyncio.Queue[AsyncLease] = asyncio.Queue()
    async with AsyncArbiter(arbiter.grpc) as library:
        lease = await library.acquire("SHORT", on_lost=lost.put_nowait)
        assert isinstance(lease, AsyncLease)
        asked = await lease.wait_yield(10)
        assert asked is not None
        assert asked.reason == "MAX_HOLD"
        assert await asyncio.wait_for(lost.get(), 10) is lease
        assert lease.lost_reason == "MAX_HOLD"
        with pytest.raises(LeaseLost):
            lease.check()
        with pytest.raises(LeaseLost):
            await lease.renew()
        assert (await lease.release()).already_ended


async def test_a_holder_that_yields_when_asked_is_not_revoked(arbiterd: Start, connect: Connect):
    client = connect(arbiterd(SHORT))
    stream = client.acquire("SHORT")
    lease = await stream.granted()
    await stream.next("yield_requested")
    released = await client.release(lease)
    assert released.reason == lease_pb2.END_REASON_YIELDED
    assert not released.already_ended
    assert (await stream.next("ended")).cause == lease_pb2.YIELD_REASON_MAX_HOLD


@pytest.mark.parametrize(
    ("watchdog", "steps"),
    [
        ("{warn: false, grace: 100ms, revoke: true}", ["YIELD_REQUESTED", "ENDED"]),
        ("{yield: false, grace: 100ms, revoke: true}", ["HOLD_EXCEEDED", "ENDED"]),
        ("{warn: false, yield: false, grace: 100ms, revoke: true}", ["ENDED"]),
        ("{grace: 100ms, revoke: false}", ["HOLD_EXCEEDED", "YIELD_REQUESTED"]),
    ],
)
async def test_each_step_can_be_turned_off(arbiterd: Start, connect: Connect, watchdog: str, steps: list[str]):
    client = connect(arbiterd(f"policies.SHORT={{max_hold: 100ms, watchdog: {watchdog}}}", "cooldown=0s"))
    first = await client.acquire("SHORT").granted()
    # Longer than the hold and the grace together: by then all has happened that is going to.
    await client.acquire("SHORT", max_wait=0.5, busy_policy="SKIP").until("granted" if "ENDED" in steps else "declined")
    assert event_names(await client.events(lease_id=first.lease_id)) == ["GRANTED", *steps]


async def test_renewing_does_not_move_the_watchdog_but_extending_does(arbiterd: Start, connect: Connect):
    client = connect(
        arbiterd("policies.SHORT={max_hold: 400ms, max_hold_limit: 1h, watchdog: {revoke: true, grace: 0s}}")
    )
    stream = client.acquire("SHORT", ttl=30, request_id="job-1")
    lease = await stream.granted()
    assert in_seconds((await client.renew(lease)).hold_remaining) <= 0.4
    assert in_seconds((await client.renew(lease, extend_hold=60)).hold_remaining) == pytest.approx(60, abs=1)
    other = await client.acquire("SHORT", client="other", max_wait=0.6).refusal()
    assert other.reason == "WAIT_TIMEOUT"  # by now 400 ms are over
    assert event_names(await client.events(lease_id=lease.lease_id)) == ["GRANTED", "RENEWED", "RENEWED"]
