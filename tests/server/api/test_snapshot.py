"""Snapshot: what the arbiter knows, once or as it changes."""

import asyncio
import itertools
import time
from typing import Any

import grpc
import pytest

from gpuarbiter.v1 import admin_pb2, lease_pb2, snapshot_pb2
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter_server.api.convert_out import Converter
from gpuarbiter_server.api.snapshots import Snapshots
from gpuarbiter_server.core.events import Caller, GpuFailed, ReadingTaken
from gpuarbiter_server.core.model import GpuProcess, GpuReading, ProcessId
from gpuarbiter_server.runtime.about import About
from support.messages import GIB, acquire, holder, release, seconds
from support.refusals import refusal
from support.server import NODE, VERSION, InProcess, serving


def take(arbiter: InProcess, gpu: str = "gpu:0", **figures: Any) -> None:
    """A reading has been taken now."""
    arbiter.runtime.submit(ReadingTaken(gpu, GpuReading(arbiter.clock(), **figures)))


async def test_an_idle_arbiter_shows_itself_and_its_gpus():
    async with serving(gpus=2) as arbiter:
        snapshot = await arbiter.snapshot()
    assert (snapshot.instance_id, snapshot.version, snapshot.node) == ("instance-1", VERSION, NODE)
    assert (snapshot.epoch, snapshot.recovering, snapshot.draining, snapshot.nvml_up) == (1, False, False, False)
    now = time.time()
    assert now - 5 < snapshot.start_time.ToNanoseconds() / 1e9 <= snapshot.snapshot_time.ToNanoseconds() / 1e9 < now + 1
    assert not snapshot.leases
    assert (len(snapshot.queue), snapshot.queue_length) == (0, 0)
    assert [(gpu.key, gpu.index, gpu.uuid, gpu.name) for gpu in snapshot.gpus] == [
        ("gpu:0", 0, "GPU-00000000", "Test GPU"),
        ("gpu:1", 1, "GPU-00000001", "Test GPU"),
    ]
    gpu = snapshot.gpus[0]
    assert (gpu.health, gpu.pressure) == (snapshot_pb2.GPU_HEALTH_UNMONITORED, snapshot_pb2.PRESSURE_NORMAL)
    assert not gpu.HasField("sample")
    assert not gpu.HasField("cooldown_remaining")
    assert not gpu.stats.HasField("hold_p50")
    assert gpu.queue_limit == 8
    assert gpu.memory.total_bytes == 24 * GIB
    assert gpu.memory.admissible_bytes == gpu.memory.total_bytes - gpu.memory.headroom_bytes


async def test_leases_and_tickets_are_shown_with_all_that_is_known_of_them():
    async with serving(gpus=2) as arbiter:
        _, lease = await arbiter.granted(acquire(gpu={"count": 2}))
        waiting, _ = await arbiter.queued(
            acquire(
                "r",
                client="second",
                task_type="TTS",
                priority=60,
                max_wait=60,
                gpu={"candidates": ["gpu:1"], "memory_bytes": GIB, "sharing": lease_pb2.SHARING_SHARED},
                context={"job_id": "j"},
            )
        )
        endless, _ = await arbiter.queued(acquire(task_type="RUN"))
        snapshot = await arbiter.snapshot()
        assert [shown.lease_id for shown in snapshot.leases] == [lease.lease_id]
        ticket, last = snapshot.queue
        assert (ticket.request_id, ticket.task_type, ticket.priority, ticket.position) == ("r", "TTS", 60, 1)
        assert ticket.holder == holder("second")
        assert ticket.reason == lease_pb2.WAIT_REASON_GPU_BUSY
        waits = ticket.wait_deadline.ToNanoseconds() - ticket.enqueue_time.ToNanoseconds()
        assert waits / 1e9 == pytest.approx(60, abs=0.5)
        assert (ticket.memory_bytes, ticket.sharing, ticket.count) == (GIB, lease_pb2.SHARING_SHARED, 1)
        assert (list(ticket.candidates), ticket.context.job_id) == (["gpu:1"], "j")
        assert not last.HasField("wait_deadline")
        assert list(last.candidates) == ["gpu:0", "gpu:1"]
        assert [gpu.queue_length for gpu in snapshot.gpus] == [1, 2]
        assert [list(gpu.lease_ids) for gpu in snapshot.gpus] == [[lease.lease_id]] * 2
        waiting.cancel()
        endless.cancel()


async def test_what_was_measured_is_shown_and_what_was_not_is_unset():
    async with serving(monitored=True) as arbiter:
        take(
            arbiter,
            memory_used_bytes=3 * GIB,
            memory_free_bytes=21 * GIB,
            utilization_ratio=0.0,
            power_watts=71.5,
        )
        gpu = (await arbiter.snapshot()).gpus[0]
        assert gpu.health == snapshot_pb2.GPU_HEALTH_OK
        assert abs(gpu.sample.sample_time.ToNanoseconds() / 1e9 - time.time()) < 1
        assert (gpu.sample.memory_used_bytes, gpu.sample.memory_free_bytes) == (3 * GIB, 21 * GIB)
        assert gpu.sample.HasField("utilization_ratio")
        assert gpu.sample.power_watts == 71.5
        for name in ("memory_bandwidth_ratio", "power_limit_watts", "temperature_celsius", "sm_clock_hertz"):
            assert not gpu.sample.HasField(name)
        assert gpu.memory.unleased_bytes == 3 * GIB
        await arbiter.advance(2.0)
        assert (await arbiter.snapshot()).gpus[0].health == snapshot_pb2.GPU_HEALTH_STALE
        arbiter.runtime.submit(GpuFailed("gpu:0", "gone"))
        assert (await arbiter.snapshot()).gpus[0].health == snapshot_pb2.GPU_HEALTH_LOST


async def test_processes_are_listed_only_when_asked_for():
    mine, foreign = ProcessId(100, 1), ProcessId(200, 2)
    async with serving(monitored=True) as arbiter:
        arbiter.machine.trusted[100] = mine
        take(arbiter, memory_used_bytes=0, processes=())
        _, lease = await arbiter.granted(acquire(holder=holder(pid=100)))
        seen = (GpuProcess(mine, 2 * GIB, name="python"), GpuProcess(foreign, None))
        take(arbiter, memory_used_bytes=3 * GIB, processes=seen)
        assert not (await arbiter.snapshot()).gpus[0].processes
        shown = (await arbiter.snapshot(processes=True)).gpus[0].processes
        assert [(p.pid, p.name, p.memory_used_bytes, p.lease_id) for p in shown] == [
            (100, "python", 2 * GIB, lease.lease_id),
            (200, "", 0, ""),
        ]
        take(arbiter, memory_used_bytes=3 * GIB, processes=None)
        assert not (await arbiter.snapshot(processes=True)).gpus[0].processes


async def test_unmonitored_gpus_have_no_processes():
    async with serving() as arbiter:
        assert not (await arbiter.snapshot(processes=True)).gpus[0].processes


async def test_the_gpus_can_be_chosen_and_an_unknown_one_is_an_error():
    async with serving(gpus=3) as arbiter:
        chosen = await arbiter.snapshot(gpus=["2", "gpu:0", "GPU-00000002"])
        assert [gpu.key for gpu in chosen.gpus] == ["gpu:2", "gpu:0"]
        for watch in (False, True):
            answer = await refusal(arbiter.stub.Snapshot(pb.SnapshotRequest(gpus=["gpu:5"], watch=watch)).read())
            assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_GPU")


async def test_so_many_tickets_and_no_more():
    async with serving("queue_limit=200") as arbiter:
        await arbiter.granted(acquire(max_hold=0))
        calls = [(await arbiter.queued(acquire(max_wait=60)))[0] for _ in range(101)]
        for asked, expected in ((0, 100), (3, 3), (1000, 101)):
            snapshot = await arbiter.snapshot(max_tickets=asked)
            assert (len(snapshot.queue), snapshot.queue_length) == (expected, 101)
        assert [ticket.position for ticket in snapshot.queue] == list(range(1, 102))
        for call in calls:
            call.cancel()


async def test_statistics_of_past_leases():
    async with serving() as arbiter:
        for _ in range(3):
            _, lease = await arbiter.granted(acquire())
            await arbiter.stub.Release(release(lease))
        _, lease = await arbiter.granted(acquire())
        waiting, _ = await arbiter.queued(acquire(max_wait=1))
        await arbiter.advance(1.0)
        assert (await refusal(waiting.read())).reason == "WAIT_TIMEOUT"
        stats = (await arbiter.snapshot()).gpus[0].stats
        assert (stats.granted_total, stats.declined_total, stats.timed_out_total) == (4, 0, 1)
        assert stats.HasField("hold_p50")
        assert stats.HasField("queue_wait_p95")


async def test_a_cooldown_and_a_cordon_are_shown():
    async with serving("cooldown=15s", gpus=1) as arbiter:
        call, _ = await arbiter.granted(acquire())
        call.cancel()
        await arbiter.at_rest()
        await arbiter.admin.Drain(admin_pb2.DrainRequest(all=True))
        snapshot = await arbiter.snapshot()
        assert 14 < snapshot.gpus[0].cooldown_remaining.ToNanoseconds() / 1e9 <= 15
        assert snapshot.gpus[0].cordoned
        assert snapshot.draining


async def test_without_its_id_a_lease_shows_no_attributes_either():
    async with serving() as arbiter:
        await arbiter.granted(acquire(context={"job_id": "j", "attributes": {"secret": "s"}}))
        (view,) = arbiter.runtime.snapshot().leases
        shown = Converter("node", arbiter.clock).lease(view, show_id=False)
        assert (shown.lease_id, shown.context.job_id, dict(shown.context.attributes)) == ("", "j", {})


async def test_what_was_rendered_is_shared_for_a_moment_and_not_kept_for_ever():
    async with serving() as arbiter:
        first = await arbiter.snapshot()
        assert (await arbiter.snapshot()).revision == first.revision
        await arbiter.granted(acquire())
        assert len((await arbiter.snapshot()).leases) == 1, "what has changed is rendered anew"
        for number in range(100):
            await arbiter.snapshot(max_tickets=1 + number)
        assert len(arbiter.service._snapshots._rendered) <= 32


# -- watching --


async def test_a_watch_sends_the_state_and_then_only_what_changes():
    async with serving() as arbiter:
        call = arbiter.stub.Snapshot(pb.SnapshotRequest(watch=True, min_interval=seconds(0.05)))
        first = (await call.read()).snapshot
        coming = asyncio.ensure_future(call.read())
        done, _ = await asyncio.wait({coming}, timeout=0.2)
        assert not done, "nothing has changed"
        _, lease = await arbiter.granted(acquire())
        second = (await coming).snapshot
        assert [shown.lease_id for shown in second.leases] == [lease.lease_id]
        assert second.revision > first.revision
        call.cancel()


async def test_changes_within_the_interval_come_as_one():
    async with serving() as arbiter:
        call = arbiter.stub.Snapshot(pb.SnapshotRequest(watch=True, min_interval=seconds(2.0)))
        began = time.monotonic()
        await call.read()
        for _ in range(20):
            _, lease = await arbiter.granted(acquire())
            await arbiter.stub.Release(release(lease))
        last = (await call.read()).snapshot
        assert time.monotonic() - began >= 1.99
        assert last.revision == arbiter.runtime.revision
        assert not last.leases
        call.cancel()


async def test_who_does_not_read_skips_states_and_holds_nobody_up():
    # What a connection buffers for a client that does not read is bounded by its flow control: some megabytes.
    async with serving("queue_limit=500") as arbiter:
        _, lease = await arbiter.granted(acquire(max_hold=0))
        context = {"attributes": {f"key{i}": "v" * 256 for i in range(16)}}
        waiting = [(await arbiter.queued(acquire(max_wait=600, context=context)))[0] for _ in range(200)]
        call = arbiter.stub.Snapshot(pb.SnapshotRequest(watch=True, min_interval=seconds(0.05), max_tickets=200))
        first = await call.read()
        assert first.ByteSize() > 800_000
        for _ in range(20):
            await arbiter.stub.Renew(pb.RenewRequest(lease_id=lease.lease_id))
            await asyncio.sleep(0.06)
        assert arbiter.runtime.revision >= first.snapshot.revision + 20
        stale = 0
        while (await call.read()).snapshot.revision < arbiter.runtime.revision:
            stale += 1
        assert stale < 12
        call.cancel()
        for each in waiting:
            each.cancel()


async def test_a_watcher_may_be_told_what_another_was_told_a_moment_ago_and_who_asks_once_the_newest():
    async with serving() as arbiter:
        kept = Snapshots(arbiter.runtime, Converter(NODE, arbiter.clock), About("instance-1", VERSION, 0.0))
        wanted = kept.wanted(pb.SnapshotRequest(), Caller())
        first = kept.render(wanted)
        _, lease = await arbiter.granted(acquire())
        second = kept.render(wanted)
        assert second.revision > first.revision
        await arbiter.stub.Release(release(lease))
        assert kept.render(wanted, after=first.revision) is second, "made a moment ago, and news to this watcher"
        third = kept.render(wanted, after=second.revision)
        assert third.revision == arbiter.runtime.revision > second.revision
        assert kept.render(wanted) is third


async def test_watchers_who_wake_at_once_let_others_in_between():
    async with serving() as arbiter:
        kept = Snapshots(arbiter.runtime, Converter(NODE, arbiter.clock), About("instance-1", VERSION, 0.0))
        told: list[str] = []

        async def watcher(number: int) -> None:
            await kept.turn()
            told.append(f"watcher {number}")

        async def others() -> None:
            while len([who for who in told if who != "another"]) < 3:
                told.append("another")
                await asyncio.sleep(0)

        await asyncio.gather(*(watcher(number) for number in range(3)), others())
        turns = [told.index(f"watcher {number}") for number in range(3)]
        assert turns == sorted(turns)
        assert all("another" in told[a:b] for a, b in itertools.pairwise(turns))
