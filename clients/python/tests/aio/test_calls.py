"""The calls that are not about a lease of one's own."""

import pytest

from fakes.scripted_arbiter import ScriptedArbiter, seconds
from gpuarbiter import ArbiterUnavailable, AsyncArbiter, Fence, WorkContext, WorkReport
from gpuarbiter.v1 import admin_pb2, lease_pb2, snapshot_pb2


async def test_a_snapshot_is_taken_once(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    snapshot = await arbiter.snapshot(["gpu:0"], processes=True, max_tickets=5)
    assert snapshot.revision == 1
    (request,) = scripted.seen["Snapshot"]
    assert (list(request.gpus), request.processes, request.max_tickets) == (["gpu:0"], True, 5)
    assert not request.watch
    scripted.snapshots.clear()
    with pytest.raises(ArbiterUnavailable, match="without a snapshot"):
        await arbiter.snapshot()


async def test_a_watch_goes_on_until_the_stream_ends(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    scripted.snapshots = [snapshot_pb2.ArbiterSnapshot(revision=number) for number in range(3)]
    seen = [snapshot.revision async for snapshot in arbiter.watch(min_interval="50ms")]
    assert seen == [0, 1, 2]
    (request,) = scripted.seen["Snapshot"]
    assert request.watch
    assert request.min_interval == seconds(0.05)


async def test_a_release_by_id(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    ended = await arbiter.release(lease_id="other", fencing_token=3, report=WorkReport())
    assert ended.reason == "RELEASED"
    await arbiter.release(request_id="mine")
    first, second = scripted.seen["Release"]
    assert (first.lease_id, first.fencing_token) == ("other", 3)
    assert first.report.result == lease_pb2.WORK_RESULT_OK
    assert second.request_id == "mine"
    for wrong in ({}, {"lease_id": "a", "request_id": "b"}):
        with pytest.raises(ValueError, match="either a lease_id or a request_id"):
            await arbiter.release(**wrong)


async def test_a_fence_is_checked(arbiter: AsyncArbiter):
    assert await arbiter.check_fence("gpu:0", 7) == Fence(current=True, newest_token=7)
    assert await arbiter.check_fence("gpu:0", 6) == Fence(current=False, newest_token=7)


async def test_work_without_a_lease_is_reported(scripted: ScriptedArbiter):
    async with AsyncArbiter(scripted.address, client_id="me") as arbiter:
        report = WorkReport("FAILED", "CPU", work_items=2)
        await arbiter.report_work("ASR", report, context=WorkContext(job_id="job"))
        await arbiter.report_work("ASR", report)
    first, second = scripted.seen["ReportWork"]
    assert (first.task_type, first.holder.client_id, first.context.job_id) == ("ASR", "me", "job")
    assert (first.report.result, first.report.device) == (lease_pb2.WORK_RESULT_FAILED, lease_pb2.WORK_DEVICE_CPU)
    assert not second.HasField("context")


async def test_what_operators_ask_for_arrives(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    admin = arbiter.admin
    assert await admin.drain(["gpu:0"], reason="driver", grace="30s") == 2
    await admin.resume(all_gpus=True)
    await admin.revoke("lease-1", grace=5, reason="mine")
    assert (await admin.get_config()).config_yaml == "enabled: true\n"
    updated = await admin.update_config("queue_limit: 3\n", revision=3, dry_run=True)
    assert (updated.revision, list(updated.restart_needed)) == (4, ["listen"])
    events = [event.sequence async for event in admin.events(after_sequence=4, limit=2)]
    assert events == [1, 2]
    assert scripted.seen["Drain"] == [
        admin_pb2.DrainRequest(gpus=["gpu:0"], reason="driver", grace=seconds(30)),
    ]
    assert scripted.seen["Resume"] == [admin_pb2.ResumeRequest(all=True)]
    assert scripted.seen["Revoke"] == [admin_pb2.RevokeRequest(lease_id="lease-1", grace=seconds(5), reason="mine")]
    assert scripted.seen["UpdateConfig"] == [
        admin_pb2.UpdateConfigRequest(patch_yaml="queue_limit: 3\n", revision=3, dry_run=True)
    ]
    assert scripted.seen["ListEvents"][0].after_sequence == 4
