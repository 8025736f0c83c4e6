"""What can happen to the arbiter itself: it is frozen, its clock jumps, there are two of it, it is told to stop, or the
machine is started again. No lease that was told is forgotten, and nobody holds what another has.
"""

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

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
)
from e2e.harness.client import Client
from e2e.harness.holders import Holder
from e2e.harness.persistent import Persistent
from fakes.faults import Faults
from fakes.nvml import FakeNvml
from fakes.polling import until
from gpuarbiter import AsyncArbiter, AsyncLease
from gpuarbiter.v1 import lease_pb2
from support import soak
from support.messages import GIB
from support.process import ISOLATED, Arbiterd, wait_until_ended
from support.refusals import refusal

Start = Callable[..., Arbiterd]
Connect = Callable[[Arbiterd], Client]
Hold = Callable[..., Holder]
Persist = Callable[..., Persistent]

TWO = "gpus=sim:2x24GiB"


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    return Faults(tmp_path)


@pytest.fixture
def state(folder: Path) -> Path:
    """The state directory."""
    return folder / "state" / "gpu-arbiter"


@pytest.fixture
def serve(launch: Start, faults: Faults) -> Start:
    """Starts an arbiter that answers, and meets the faults; it may be killed."""

    def start(*settings: str, **more: str) -> Arbiterd:
        return launch(*settings, more=faults.env | more).wait_until_ready()

    return start


@pytest.fixture
async def persistent() -> AsyncIterator[Persist]:
    """Makes clients that join again when their stream breaks: `persistent(arbiter, "request-1", ttl=5)`."""
    made: list[Persistent] = []

    def start(arbiter: Arbiterd, request_id: str, **request: Any) -> Persistent:
        made.append(Persistent(arbiter.grpc, request_id, **request))
        return made[-1]

    yield start
    for each in made:
        await each.aclose()


class TestFrozen:
    """R4: what arrived while it was frozen is read before anything expires; who has lost the line can join."""

    SECONDS = 10.0 if soak.wanted() else 3.0
    # The library's holders go by their own clock: without a line and a ttl they hold for so long.
    LIBRARY_GIVES_UP_SECONDS = 5.0

    async def test_nobody_loses_anything(
        self, arbiterd: Start, connect: Connect, persistent: Persist, capsys: pytest.CaptureFixture[str]
    ):
        arbiter = arbiterd("gpus=sim:6x24GiB")
        client = connect(arbiter)
        # The ttl is shorter than the fault: the one carries its lease by a stream, the other by renewals alone.
        streams = [persistent(arbiter, "no ttl"), persistent(arbiter, "short ttl", ttl=1)]
        leases = [await stream.granted() for stream in streams]
        alone = await detached(client, "alone", ttl=1)
        # A client that notices nothing.
        deaf = client.acquire(client="deaf", max_hold=0, request_id="deaf")
        leases += [alone, await deaf.granted()]
        async with AsyncArbiter(arbiter.grpc, client_id="library") as library:
            held = await library.acquire("TASK", max_hold=0)
            assert isinstance(held, AsyncLease)
            waiting = persistent(arbiter, "waiting", count=2)
            await waiting.until_stands()
            renewals = asyncio.ensure_future(renew_always(client, alone))

            arbiter.signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(self.SECONDS)  # The fault itself.
                for stream in (*streams, waiting):
                    await stream.until_broken()
            finally:
                arbiter.signal(signal.SIGCONT)
            thawed = time.monotonic()
            for stream in (*streams, waiting):
                await stream.until_stands()
            back = time.monotonic() - thawed

            # Long enough for whatever was late to come to its end, if it were to.
            watched_until = time.monotonic() + 2.5
            while time.monotonic() < watched_until:
                snapshot = await client.snapshot()
                assert {lease.lease_id for lease in leases} <= {lease.lease_id for lease in snapshot.leases}
                assert snapshot.queue_length == 1
                await asyncio.sleep(0.1)
            assert not renewals.done()
            assert [event.lease_id for event in await client.events("ENDED")] in ([], [held.lease_id])
            for stream, lease in zip(streams, leases, strict=False):
                assert all(same(each, lease) for each in stream.leases)
                assert len(stream.leases) > 1
            if self.SECONDS < self.LIBRARY_GIVES_UP_SECONDS:
                held.check()
                assert not held.uncertain
            else:
                assert held.lost_reason == "DISCONNECTED"
        assert "stalled for" in arbiter.output
        with soak.figures(capsys):
            print(
                f"\nfrozen for {self.SECONDS:g} s with {len(leases)} leases (2 with a ttl of 1 s): 0 expired; "
                f"{len(streams)} holders and 1 waiting client had joined again {back:.2f} s after it went on"
            )
        # And the one that waits has its place: the library's GPU is free, and now another.
        await client.release(leases[0])
        assert len((await waiting.granted()).gpus) == 2
        renewals.cancel()


async def renew_always(client: Client, lease: lease_pb2.Lease) -> None:
    """As a holder does that has no line but this: again and again, however long it takes; ends when it is refused."""
    while True:
        try:
            await client.renew(lease)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
        await asyncio.sleep(0.3)


class TestTheWallClock:
    """R9: only clocks that cannot be set decide."""

    @pytest.mark.parametrize("hours", [1, -1])
    async def test_nothing_changes(
        self,
        serve: Start,
        connect: Connect,
        holder: Hold,
        faults: Faults,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        hours: int,
    ):
        fake = FakeNvml(tmp_path, gpus=5)
        settings = ("gpus=auto", "cooldown=2s", "defaults.watchdog.revoke=true", "defaults.watchdog.grace=0s")
        arbiter = serve(*settings, **fake.env)
        client = connect(arbiter)
        # One of each that ends by a clock, and one of each that does not end for long.
        job = holder(arbiter, request_id="job", candidates=["gpu:0"])
        lease = await job.granted()
        fake.allocate(0, await job.child(), GIB)
        lasting = await detached(client, "lasting", ttl=600, candidates=["gpu:1"])
        carried = client.acquire(client="carried", max_hold=0, candidates=["gpu:2"])
        await carried.granted()
        waiting = client.acquire(client="waiting", candidates=["gpu:2"], max_wait=600)
        await waiting.waits_for("GPU_BUSY")
        began = time.monotonic()
        job.kill()
        short = await detached(client, "short", ttl=2, candidates=["gpu:3"])
        held = await client.acquire(client="held", max_hold=2, candidates=["gpu:4"]).granted()
        impatient = asyncio.ensure_future(client.acquire(candidates=["gpu:2"], max_wait=2).refusal())
        await client.happens("COOLDOWN_STARTED", lease["leaseId"])

        offset = hours * 3600.0
        for step in (offset, 0.0, offset):
            faults.wall_offset = step
            await client.renew(lasting)
            await asyncio.sleep(0.3)  # The fault itself: the clock jumps now and then.

        # It does see the other time.
        now = (await client.snapshot()).snapshot_time.ToNanoseconds() / 1e9
        assert now - time.time() == pytest.approx(offset, abs=LATE_SECONDS)
        assert (await impatient).reason == "WAIT_TIMEOUT"
        took = {"max_wait": time.monotonic() - began}
        for name, (kind, lease_id) in {
            "ttl": ("ENDED", short.lease_id),
            "max_hold": ("ENDED", held.lease_id),
            "cooldown": ("COOLDOWN_ENDED", lease["leaseId"]),
        }.items():
            await client.happens(kind, lease_id)
            took[name] = time.monotonic() - began
        assert all(2.0 <= seconds < 2.0 + LATE_SECONDS for seconds in took.values()), took
        snapshot = await client.snapshot()
        assert [each.holder.client_id for each in snapshot.leases] == ["lasting", "carried"]
        assert snapshot.queue_length == 1
        # The next start goes by the same clocks; and its tokens rise, whatever the wall clock says.
        kill(arbiter)
        again = connect(serve(*settings, **fake.env))
        # An end that was not on the disk yet is not known to it, and comes again.
        assert {each.holder.client_id for each in (await again.snapshot()).leases} >= {"lasting", "carried"}
        later = await again.acquire(candidates=["gpu:0"]).granted()
        assert later.fencing_token > held.fencing_token
        assert faults.wall_waits == 0
        with soak.figures(capsys):
            told = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in sorted(took.items()))
            print(f"\nwall clock {hours:+d} h, back, and again: of 2 s each took {told}; 2 leases and 1 wait went on")


class TestTwo:
    """R10: the second refuses to start, says why, and costs the first nothing."""

    async def test_on_one_state_directory(self, arbiterd: Start, connect: Connect, state: Path, tmp_path: Path):
        arbiter = arbiterd()
        client = connect(arbiter)
        lease = await detached(client, "first", ttl=60)
        second = Arbiterd("serve", *ISOLATED, "--set", f"journal.path={state}", folder=tmp_path)
        try:
            assert wait_until_ended(second) == 1
        finally:
            second.stop()
        assert f"another arbiter (pid {arbiter.pid}) uses the state directory {state}" in second.output
        assert "journal.path" in second.output
        assert "Traceback" not in second.output
        await client.renew(lease)
        assert await health(arbiter) == SERVING

    @pytest.mark.parametrize("what", ["grpc", "http", "socket"])
    async def test_on_one_address(self, arbiterd: Start, connect: Connect, tmp_path: Path, what: str):
        arbiter = arbiterd()
        client = connect(arbiter)
        lease = await detached(client, "first", ttl=60)
        address = getattr(arbiter, what)
        setting = f"listen.{what}={address.removeprefix('unix:')}"
        second = Arbiterd("serve", *ISOLATED, "--set", setting, folder=tmp_path)
        try:
            assert wait_until_ended(second) == 1
        finally:
            second.stop()
        assert address in second.output
        assert "does another gpu-arbiterd run there?" in second.output or "another" in second.output
        assert "Traceback" not in second.output
        await client.renew(lease)
        other = connect(arbiter)
        assert len((await other.snapshot()).leases) == 1

    def test_started_at_the_same_moment(self, tmp_path: Path):
        pair = [Arbiterd("serve", *ISOLATED, folder=tmp_path) for _ in range(2)]
        try:
            until(lambda: any(each.process.poll() is not None for each in pair), "for one to give up")
            loser, winner = sorted(pair, key=lambda each: each.process.poll() is None)
            assert loser.wait() == 1
            assert re.search(rf"another arbiter \(pid ({winner.pid}|unknown)\) uses the state directory", loser.output)
            winner.wait_until_ready()
        finally:
            for each in pair:
                each.stop()

    async def test_after_the_first_was_killed(self, serve: Start, connect: Connect):
        first = serve()
        kill(first)
        # Nothing is in its way: neither the lock, nor the number in it, nor the socket.
        second = serve()
        await connect(second).acquire().granted()


class TestToldToStop:
    """R12: no new grants, who waits and who holds is told, and who holds can go on with the next one."""

    GRACE_SECONDS = 1.5

    async def test_it_ends_in_order(self, serve: Start, connect: Connect, capsys: pytest.CaptureFixture[str]):
        arbiter = serve("gpus=sim:4x24GiB", f"shutdown_grace={1000 * self.GRACE_SECONDS:g}ms")
        client = connect(arbiter)
        wishes = {"client": "carried", "request_id": "carried", "candidates": ["gpu:0"], "max_hold": 0}
        carried = client.acquire(**wishes)
        lease = await carried.granted()
        alone = await detached(client, "alone", ttl=30)
        leaving = await client.acquire(client="leaving", ttl=30).granted()
        waiting = client.acquire(client="waiting", candidates=["gpu:0"])
        await waiting.waits_for("GPU_BUSY")
        heard: list[int] = []
        watching = asyncio.ensure_future(_watch_health(arbiter, heard))
        await holds(lambda: heard, "the health to be told")

        told = time.monotonic()
        arbiter.signal(signal.SIGTERM)
        refused = await waiting.refusal()
        waiter_told = time.monotonic() - told
        assert (refused.code.name, refused.reason) == ("UNAVAILABLE", "SHUTDOWN")
        assert await health(arbiter) == NOT_SERVING
        assert await readiness(arbiter) == (503, "stopping")
        refused = await client.acquire(candidates=["gpu:3"]).refusal()
        assert (refused.code.name, refused.reason) == ("UNAVAILABLE", "SHUTDOWN")
        declined = await client.acquire(candidates=["gpu:3"], busy_policy="SKIP").next("declined")
        assert declined.reason == lease_pb2.WAIT_REASON_SHUTDOWN
        assert not (await client.release(leaving)).already_ended
        renewed = 0
        while time.monotonic() - told < self.GRACE_SECONDS / 2:
            await client.renew(lease)
            await client.renew(alone)
            renewed += 1
            await asyncio.sleep(0.05)
        refused = await carried.refusal()
        holder_told = time.monotonic() - told
        assert (refused.code.name, refused.reason) == ("UNAVAILABLE", "SHUTDOWN")
        assert holder_told >= self.GRACE_SECONDS
        assert await asyncio.to_thread(arbiter.wait) == 0
        assert "Traceback" not in arbiter.output
        await watching
        assert heard == [SERVING, NOT_SERVING]
        assert renewed

        next_one = serve("gpus=sim:4x24GiB")
        again = connect(next_one)
        assert {each.lease_id for each in (await again.snapshot()).leases} == {lease.lease_id, alone.lease_id}
        assert same(await again.acquire(**wishes).granted(), lease)
        await again.renew(alone)
        with soak.figures(capsys):
            print(
                f"\nSIGTERM with {self.GRACE_SECONDS:g} s of grace: "
                f"who waited was told after {1000 * waiter_told:.0f} ms, "
                f"{2 * renewed} renewals and a release were served, the holder was told after {holder_told:.2f} s; "
                "2 of 2 leases went on with the next one"
            )


async def _watch_health(arbiter: Arbiterd, heard: list[int]) -> None:
    """Adds what a watcher of its health is told, until it is gone."""
    async with grpc.aio.insecure_channel(arbiter.grpc) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watching = stub.Watch(health_pb2.HealthCheckRequest())
        with suppress(grpc.RpcError):
            while (answer := await watching.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
                heard.append(answer.status)


class TestTheMachineWasStartedAgain:
    """Every holder of before is dead: nothing is waited for."""

    @pytest.mark.parametrize("end", ["killed", "told to stop"])
    async def test_its_gpus_are_free_at_once(
        self, serve: Start, connect: Connect, faults: Faults, capsys: pytest.CaptureFixture[str], end: str
    ):
        arbiter = serve(TWO)
        client = connect(arbiter)
        old = [
            await client.acquire(client="carried", request_id="carried", max_hold=0).granted(),
            await detached(client, "alone", ttl=3600),
        ]
        if end == "killed":
            kill(arbiter)
        else:
            arbiter.stop()
        # An arbiter alone was started again: all is kept.
        arbiter = serve(TWO)
        assert len((await connect(arbiter).snapshot()).leases) == 2
        kill(arbiter)
        faults.reboot()
        again = connect(serve(TWO))
        assert not (await again.snapshot()).leases
        began = time.monotonic()
        new = await again.acquire(client="new", count=2).granted()
        took = time.monotonic() - began
        assert took < LATE_SECONDS
        assert new.fencing_token > max(lease.fencing_token for lease in old)
        for lease in old:
            refused = await refusal(again.renew(lease))
            assert (refused.reason, refused.metadata["end_reason"]) == ("LEASE_ENDED", "HOLDER_DIED")
        ended = await again.acquire(client="carried", request_id="carried", max_hold=0).next("ended")
        assert ended.reason == lease_pb2.END_REASON_HOLDER_DIED
        assert "the machine was started again" in ended.detail
        with soak.figures(capsys):
            print(f"\nthe machine was started again: both GPUs were granted on in {1000 * took:.0f} ms")
