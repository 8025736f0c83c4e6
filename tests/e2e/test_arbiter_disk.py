"""R7: a disk that is full, fails or hangs: nothing is granted that is not on it, what is held goes on, and it heals."""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from e2e.harness.arbiters import (
    LATE_SECONDS,
    NOT_SERVING,
    SERVING,
    detached,
    health,
    holds,
    kill,
    readiness,
    same,
    shows,
    timed,
)
from e2e.harness.client import Client
from e2e.harness.persistent import Persistent
from fakes.faults import Faults
from gpuarbiter.v1 import lease_pb2
from support import soak
from support.process import Arbiterd, wait_until_ended

Start = Callable[..., Arbiterd]
Connect = Callable[[Arbiterd], Client]
Serve = Callable[[str], Arbiterd]

THREE = "gpus=sim:3x24GiB"
# How long a commit may hang before whoever waits for it is told.
STALL_SECONDS = 2.0


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    return Faults(tmp_path)


@pytest.fixture
def serve(launch: Start, faults: Faults) -> Serve:
    """Starts an arbiter that answers, and meets the faults; it may be killed."""
    return lambda setting: launch(setting, more=faults.env).wait_until_ready()


# With the whole directory, the history has the same disk as the journal.
@pytest.mark.parametrize(
    ("fault", "files"),
    [("full", "gpu-arbiter/"), ("syncs fail", "journal.db"), ("syncs hang", "gpu-arbiter/")],
    ids=["full", "syncs fail", "syncs hang"],
)
async def test_it_grants_nothing_and_recovers(
    serve: Serve, connect: Connect, faults: Faults, capsys: pytest.CaptureFixture[str], fault: str, files: str
):
    arbiter = serve(THREE)
    client = connect(arbiter)
    first = await client.acquire(client="first", request_id="first", candidates=["gpu:0"], max_hold=0).granted()
    second = await detached(client, "second", ttl=30, candidates=["gpu:1"])
    async with aclosing(Persistent(arbiter.grpc, "waiting", candidates=["gpu:0"])) as waiting:
        await waiting.until_stands()

        {"full": faults.disk_full, "syncs fail": faults.syncs_fail, "syncs hang": faults.syncs_hang}[fault](files)
        asked = time.monotonic()
        refused = await client.acquire(candidates=["gpu:2"]).refusal()
        refused_after = time.monotonic() - asked
        assert (refused.code.name, refused.reason) == ("UNAVAILABLE", "JOURNAL_UNAVAILABLE")
        assert refused.retry_after is not None
        assert refused_after < STALL_SECONDS + LATE_SECONDS
        assert faults.failed or faults.syncing
        declined = await client.acquire(candidates=["gpu:2"], busy_policy="SKIP").next("declined")
        assert declined.reason == lease_pb2.WAIT_REASON_JOURNAL
        await shows(arbiter, NOT_SERVING)
        code, why = await readiness(arbiter)
        assert (code, why[:29]) == (503, "the journal cannot be written")

        # What is held goes on meanwhile: renewed, and given back.
        renewed = [await timed(client.renew(second)) for _ in range(20)]
        released = await timed(client.release(first))
        assert max(*renewed, released) < 1.0
        assert (await client.release(first)).already_ended
        assert (await client.snapshot()).queue_length == 1
        assert not waiting.leases
        assert await health(arbiter) == NOT_SERVING

        healed = time.monotonic()
        faults.heal()
        await shows(arbiter, SERVING)
        serving_after = time.monotonic() - healed
        assert await readiness(arbiter) == (200, "OK")
        # The one that waited has kept its place.
        third = await waiting.granted()
        assert not waiting.breaks
        wishes = {"client": "fourth", "request_id": "fourth", "candidates": ["gpu:2"], "ttl": 30}
        fourth = await client.acquire(**wishes).granted()
        assert second.fencing_token < third.fencing_token < fourth.fencing_token

        # What is granted now is on the disk.
        kill(arbiter)
    again = connect(serve(THREE))
    found = {lease.lease_id for lease in (await again.snapshot()).leases}
    assert found == {lease.lease_id for lease in (second, third, fourth)}
    assert same(await again.acquire(**wishes).granted(), fourth)
    with soak.figures(capsys):
        print(
            f"\n{fault} ({files}): refused after {refused_after:.2f} s; meanwhile 20 renewals, the slowest in "
            f"{1000 * max(renewed):.0f} ms, and a release in {1000 * released:.0f} ms; "
            f"serving {serving_after:.2f} s after it healed; the restart found {len(found)} of 3 leases"
        )


async def test_before_a_hang_counts_as_a_failure_only_who_needs_the_disk_waits(
    serve: Serve, connect: Connect, faults: Faults
):
    client = connect(serve(THREE))
    held = await detached(client, "held", ttl=30, candidates=["gpu:0"])
    faults.syncs_hang("journal.db")
    asking = asyncio.ensure_future(client.acquire(candidates=["gpu:1"]).refusal())
    await holds(lambda: faults.syncing, "a sync that hangs")
    renewed = [await timed(client.renew(held)) for _ in range(20)]
    assert not asking.done()
    assert max(renewed) < 0.5
    # A release is answered once it is on the disk, or is known not to be: then it stands all the same.
    assert await timed(client.release(held)) < STALL_SECONDS + LATE_SECONDS
    assert (await asking).reason == "JOURNAL_UNAVAILABLE"
    faults.heal()


async def test_a_slow_disk_is_no_failure(serve: Serve, connect: Connect, faults: Faults):
    arbiter = serve(THREE)
    client = connect(arbiter)
    faults.syncs_hang("journal.db", 0.3)
    assert await timed(client.acquire().granted()) >= 0.3
    assert await health(arbiter) == SERVING


async def test_killed_while_it_fails_it_may_not_know_of_ends(serve: Serve, connect: Connect, faults: Faults):
    arbiter = serve(THREE)
    client = connect(arbiter)
    kept = await detached(client, "kept", ttl=30, candidates=["gpu:0"])
    given_back = await detached(client, "given back", ttl=30, candidates=["gpu:1"])
    faults.syncs_fail("journal.db")
    assert (await client.acquire(client="refused", candidates=["gpu:2"]).refusal()).reason == "JOURNAL_UNAVAILABLE"
    assert not (await client.release(given_back)).already_ended
    kill(arbiter)
    faults.heal()
    again = connect(serve(THREE))
    leases = {lease.lease_id: lease for lease in (await again.snapshot()).leases}
    assert {kept.lease_id, given_back.lease_id} <= leases.keys()
    assert all(lease.state == lease_pb2.LEASE_STATE_RECOVERING for lease in leases.values())
    # What was written, and not known to be on the disk, may be there all the same; nobody was told of it, and it waits
    # for a holder no longer than others do.
    others = [lease for lease in leases.values() if lease.lease_id not in {kept.lease_id, given_back.lease_id}]
    assert [lease.holder.client_id for lease in others] in ([], ["refused"])
    # A GPU is granted on once its lease has ended anew.
    waiting = again.acquire(client="next", candidates=["gpu:1"])
    await waiting.waits_for("RECOVERY")
    assert not (await again.release(given_back)).already_ended
    assert (await waiting.granted()).fencing_token > given_back.fencing_token
    await again.renew(kept)


async def test_killed_in_a_commit_that_hangs_it_has_told_nobody(serve: Serve, connect: Connect, faults: Faults):
    arbiter = serve(THREE)
    faults.syncs_hang("journal.db")
    async with aclosing(Persistent(arbiter.grpc, "asking")) as asking:
        await holds(lambda: faults.syncing, "a sync that hangs")
        kill(arbiter)
        assert not asking.leases
    faults.heal()
    again = connect(serve(THREE))
    # It may have come to the disk; then its client would find it.
    assert len((await again.snapshot()).leases) <= 1
    await again.acquire(client="other", count=2).granted()


@pytest.mark.parametrize("fault", ["full", "syncs fail"])
def test_it_does_not_start_on_a_disk_that_fails(launch: Start, faults: Faults, fault: str):
    faults.disk_full("gpu-arbiter/") if fault == "full" else faults.syncs_fail("gpu-arbiter/")
    refused = launch(more=faults.env)
    assert wait_until_ended(refused) == 1
    assert "gpu-arbiterd cannot start: " in refused.output
    assert "journal" in refused.output
    assert "Traceback" not in refused.output
    # And does when it is well again.
    faults.heal()
    launch(more=faults.env).wait_until_ready()
