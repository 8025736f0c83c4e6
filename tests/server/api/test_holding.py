"""The unary calls of a holder: Release, Renew, Resize, CheckFence, ReportWork."""

from typing import Any

import grpc

from gpuarbiter.v1 import admin_pb2, lease_pb2
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter_server.core.effects import Recorded
from gpuarbiter_server.core.model import EventType, WorkDevice, WorkResult
from support.messages import GIB, acquire, holder, in_seconds, release, seconds
from support.refusals import refusal
from support.server import rest_of, serving


class Listener:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.seen: list[Recorded] = []

    def observe(self, recorded: Recorded) -> None:
        self.seen.append(recorded)


# -- Release --


async def test_release_is_idempotent():
    async with serving() as arbiter:
        _, lease = await arbiter.granted(acquire())
        first = await arbiter.stub.Release(release(lease))
        again = await arbiter.stub.Release(release(lease))
        assert (first.already_ended, again.already_ended) == (False, True)
        assert (again.reason, again.held) == (first.reason, first.held)
        assert not again.HasField("memory_peak_bytes")


async def test_a_stale_token_releases_nothing():
    async with serving() as arbiter:
        _, lease = await arbiter.granted(acquire())
        request = pb.ReleaseRequest(lease_id=lease.lease_id, fencing_token=lease.fencing_token + 1)
        answer = await refusal(arbiter.stub.Release(request))
        assert (answer.code, answer.reason) == (grpc.StatusCode.ABORTED, "STALE_TOKEN")
        assert len((await arbiter.snapshot()).leases) == 1
        await arbiter.stub.Release(pb.ReleaseRequest(lease_id=lease.lease_id))
        answer = await refusal(arbiter.stub.Release(request))
        assert answer.reason == "STALE_TOKEN", "also once it is over"


async def test_a_waiting_request_is_taken_back_by_its_request_id():
    async with serving() as arbiter:
        await arbiter.granted(acquire(client="other"))
        call, _ = await arbiter.queued(acquire("r", max_wait=60))
        answer = await arbiter.stub.Release(pb.ReleaseRequest(request_id="r"))
        assert (answer.reason, answer.already_ended) == (lease_pb2.END_REASON_CANCELLED, False)
        failed = await refusal(call.read())
        assert (failed.code, failed.reason) == (grpc.StatusCode.ABORTED, "CANCELLED")
        again = await arbiter.stub.Release(pb.ReleaseRequest(request_id="r"))
        assert (again.reason, again.already_ended) == (lease_pb2.END_REASON_CANCELLED, True)


async def test_a_lease_is_released_by_its_request_id():
    async with serving() as arbiter:
        call, _ = await arbiter.granted(acquire("r"))
        answer = await arbiter.stub.Release(pb.ReleaseRequest(request_id="r"))
        assert answer.reason == lease_pb2.END_REASON_RELEASED
        assert len(await rest_of(call)) == 1


async def test_a_request_id_of_several_clients_names_none():
    async with serving(gpus=2) as arbiter:
        for client in ("a", "b"):
            await arbiter.granted(acquire("r", client=client))
        answer = await refusal(arbiter.stub.Release(pb.ReleaseRequest(request_id="r")))
        assert (answer.reason, answer.fields) == ("INVALID_REQUEST", {"request_id"})


async def test_what_was_never_there_is_not_found():
    async with serving() as arbiter:
        for target in ({"lease_id": "3e8-0000000000000000"}, {"lease_id": "zzz"}, {"request_id": "r"}):
            answer = await refusal(arbiter.stub.Release(pb.ReleaseRequest(**target)))
            assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_LEASE")
            assert answer.metadata == {"name": next(iter(target.values()))}


async def test_a_report_rides_on_the_release():
    listener = Listener()
    async with serving(observers=(listener,)) as arbiter:
        _, lease = await arbiter.granted(acquire(gpu={"memory_bytes": 4 * GIB}))
        report = lease_pb2.WorkReport(
            result=lease_pb2.WORK_RESULT_OK, device=lease_pb2.WORK_DEVICE_GPU, work_items=3, peak_memory_bytes=GIB
        )
        answer = await arbiter.stub.Release(pb.ReleaseRequest(lease_id=lease.lease_id, report=report))
        assert (answer.memory_verdict, answer.memory_peak_bytes) == (lease_pb2.MEMORY_VERDICT_UNDER, GIB)
    (ended,) = [recorded for recorded in listener.seen if recorded.type is EventType.ENDED]
    assert ended.report is not None
    assert (ended.report.result, ended.report.device) == (WorkResult.OK, WorkDevice.GPU)
    assert (ended.report.work_items, ended.report.peak_memory_bytes, ended.report.duration) == (3, GIB, None)


# -- Renew --


async def test_renewing_proves_life_and_moves_the_hold_only_when_asked_to():
    async with serving() as arbiter:
        _, lease = await arbiter.granted(acquire("r", detached=True, ttl=30, max_hold=100))
        await arbiter.advance(10.0)
        renewed = await arbiter.stub.Renew(pb.RenewRequest(lease_id=lease.lease_id, fencing_token=lease.fencing_token))
        assert in_seconds(renewed.ttl_remaining) == 30
        assert 89 < in_seconds(renewed.hold_remaining) <= 90
        assert not renewed.HasField("pending_yield")
        request = pb.RenewRequest(lease_id=lease.lease_id, extend_hold=seconds(500))
        renewed = await arbiter.stub.Renew(request)
        assert 499 < in_seconds(renewed.hold_remaining) <= 500


async def test_the_hold_is_extended_within_the_limit_of_the_policy():
    async with serving("policies.ASR.max_hold_limit=20s") as arbiter:
        _, lease = await arbiter.granted(acquire(max_hold=0))
        assert in_seconds(lease.hold_remaining) == 20
        request = pb.RenewRequest(lease_id=lease.lease_id, extend_hold=seconds(500))
        assert 19 < in_seconds((await arbiter.stub.Renew(request)).hold_remaining) <= 20


async def test_what_does_not_bind_a_lease_is_unset_in_the_answer():
    async with serving() as arbiter:
        _, lease = await arbiter.granted(acquire(max_hold=0))
        assert await arbiter.stub.Renew(pb.RenewRequest(lease_id=lease.lease_id)) == pb.RenewResponse()


async def test_a_renewal_tells_of_the_yield_request_that_stands():
    async with serving() as arbiter:
        _, lease = await arbiter.granted(acquire("r", detached=True, ttl=30, max_hold=0))
        revoke = admin_pb2.RevokeRequest(lease_id=lease.lease_id, grace=seconds(20), reason="please")
        await arbiter.admin.Revoke(revoke)
        pending = (await arbiter.stub.Renew(pb.RenewRequest(lease_id=lease.lease_id))).pending_yield
        assert (pending.reason, pending.detail) == (lease_pb2.YIELD_REASON_OPERATOR, "please")
        assert 19 < in_seconds(pending.grace) <= 20


async def test_what_has_ended_can_neither_be_renewed_nor_resized():
    async with serving() as arbiter:
        _, lease = await arbiter.granted(acquire())
        await arbiter.stub.Release(release(lease))
        for call in (
            arbiter.stub.Renew(pb.RenewRequest(lease_id=lease.lease_id)),
            arbiter.stub.Resize(pb.ResizeRequest(lease_id=lease.lease_id, memory_bytes=GIB)),
        ):
            answer = await refusal(call)
            assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LEASE_ENDED")
            assert answer.metadata == {"end_reason": "RELEASED"}


# -- Resize --


async def test_from_exclusive_to_shared_once_the_model_is_loaded():
    async with serving() as arbiter:
        call, lease = await arbiter.granted(acquire(gpu={"memory_bytes": 20 * GIB}))
        waiting, _ = await arbiter.queued(acquire(max_wait=60, gpu={"memory_bytes": GIB, "sharing": 2}))
        request = pb.ResizeRequest(
            lease_id=lease.lease_id,
            fencing_token=lease.fencing_token,
            memory_bytes=4 * GIB,
            sharing=lease_pb2.SHARING_SHARED,
        )
        resized = (await arbiter.stub.Resize(request)).lease
        assert (resized.lease_id, resized.sharing) == (lease.lease_id, lease_pb2.SHARING_SHARED)
        assert [gpu.committed_bytes for gpu in resized.gpus] == [4 * GIB]
        assert (await waiting.read()).HasField("granted")
        call.cancel()


async def test_what_would_not_be_admitted_is_refused_and_changes_nothing():
    async with serving() as arbiter:
        _, lease = await arbiter.granted(acquire(gpu={"memory_bytes": GIB}))
        before = (await arbiter.snapshot()).leases[0].gpus[0]
        for wish in ({"memory_bytes": 30 * GIB}, {"sharing": lease_pb2.SHARING_SHARED}):
            answer = await refusal(arbiter.stub.Resize(pb.ResizeRequest(lease_id=lease.lease_id, **wish)))
            assert (answer.code, answer.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RESIZE_REFUSED")
        after = (await arbiter.snapshot()).leases[0]
        assert (after.gpus[0], after.sharing) == (before, lease_pb2.SHARING_EXCLUSIVE)


async def test_resizing_by_a_stale_token_changes_nothing():
    async with serving() as arbiter:
        _, lease = await arbiter.granted(acquire(gpu={"memory_bytes": GIB}))
        request = pb.ResizeRequest(lease_id=lease.lease_id, fencing_token=1, memory_bytes=2 * GIB)
        assert (await refusal(arbiter.stub.Resize(request))).reason == "STALE_TOKEN"


async def test_declared_memory_can_be_set_to_nothing():
    async with serving() as arbiter:
        _, lease = await arbiter.granted(acquire(gpu={"memory_bytes": GIB, "sharing": 2}))
        resized = await arbiter.stub.Resize(pb.ResizeRequest(lease_id=lease.lease_id, memory_bytes=0))
        assert resized.lease.gpus[0].declared_bytes == 0


# -- CheckFence --


async def test_a_token_is_current_while_its_lease_lives():
    async with serving(gpus=2) as arbiter:

        async def check(gpu: str, token: int) -> tuple[bool, int]:
            answer = await arbiter.stub.CheckFence(pb.CheckFenceRequest(gpu=gpu, fencing_token=token))
            return answer.current, answer.newest_token

        _, lease = await arbiter.granted(acquire(gpu={"candidates": ["gpu:0"]}))
        token = lease.fencing_token
        for name in ("gpu:0", "0", "GPU-00000000"):
            assert await check(name, token) == (True, token)
        assert await check("gpu:1", token) == (False, 0)
        assert await check("gpu:0", token + 1) == (False, token)
        await arbiter.stub.Release(release(lease))
        assert await check("gpu:0", token) == (False, token)
        answer = await refusal(arbiter.stub.CheckFence(pb.CheckFenceRequest(gpu="gpu:9", fencing_token=1)))
        assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_GPU")
        assert answer.metadata == {"gpu": "gpu:9", "known": "gpu:0,gpu:1"}


# -- ReportWork --


async def test_work_without_a_lease_is_told_of():
    listener = Listener()
    async with serving(observers=(listener,)) as arbiter:
        request = pb.ReportWorkRequest(
            task_type="NMT",
            holder=holder("worker-3"),
            report=lease_pb2.WorkReport(
                result=lease_pb2.WORK_RESULT_FAILED, device=lease_pb2.WORK_DEVICE_CPU, duration=seconds(0.25)
            ),
            context={"session_id": "s"},
        )
        assert await arbiter.stub.ReportWork(request) == pb.ReportWorkResponse()
        (event,) = await arbiter.events()
        assert (event.type, event.task_type) == (admin_pb2.EVENT_TYPE_WORK_REPORTED, "NMT")
        assert event.holder.client_id == "worker-3"
    (recorded,) = listener.seen
    report: Any = recorded.report
    assert (report.result, report.device, report.duration) == (WorkResult.FAILED, WorkDevice.CPU, 0.25)
    assert recorded.context is not None
    assert recorded.context.session_id == "s"
