"""The Acquire stream as the contract tells it, from its first event to its status."""

import time

import grpc
import pytest

from gpuarbiter.v1 import admin_pb2, lease_pb2
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter_server.api.convert_out import _visible_devices
from gpuarbiter_server.core.events import GpuFailed, ReadingTaken
from gpuarbiter_server.core.model import GpuProcess, GpuReading, GpuSpec, ProcessId
from gpuarbiter_server.core.views import GrantView
from support.messages import GIB, acquire, holder, in_seconds, release, seconds
from support.refusals import refusal
from support.server import FIRST_TOKEN, NODE, rest_of, serving


def kinds(answers: list[pb.AcquireResponse]) -> list[str | None]:
    return [answer.WhichOneof("event") for answer in answers]


# -- grants --


async def test_a_free_gpu_is_granted_at_once_and_the_release_ends_the_stream():
    async with serving() as arbiter:
        call = arbiter.stub.Acquire(acquire())
        first = await call.read()
        assert first.WhichOneof("event") == "granted"
        answer = await arbiter.stub.Release(release(first.granted.lease))
        assert answer.reason == lease_pb2.END_REASON_RELEASED
        (ended,) = await rest_of(call)
        assert ended.ended.reason == lease_pb2.END_REASON_RELEASED
        assert ended.ended.held == answer.held


async def test_the_lease_says_all_that_its_holder_needs():
    request = acquire(
        "r-1",
        task_type="NMT",
        holder=holder("worker-7", pid=4711, namespace="prod", pod="p", container="c", attestation="secret"),
        gpu={"memory_bytes": GIB, "sharing": lease_pb2.SHARING_SHARED},
        priority=7,
        max_hold=60,
        ttl=30,
        context={"job_id": "j", "session_id": "s", "utterance_index": 0, "stage": "NMT", "attributes": {"k": "v"}},
    )
    async with serving() as arbiter:
        before = time.time()
        _, lease = await arbiter.granted(request)
        shown = (await arbiter.snapshot()).leases[0]
        assert before - 0.1 <= lease.grant_time.ToNanoseconds() / 1e9 <= time.time() + 0.1
    assert lease.lease_id
    assert lease.fencing_token == FIRST_TOKEN
    assert (lease.request_id, lease.task_type, lease.priority) == ("r-1", "NMT", 7)
    assert (lease.sharing, lease.state) == (lease_pb2.SHARING_SHARED, lease_pb2.LEASE_STATE_HELD)
    assert lease.holder == holder("worker-7", pid=4711, namespace="prod", pod="p", container="c")
    assert lease.context == request.context
    assert lease.context.HasField("utterance_index")
    assert (lease.node, lease.principal, lease.visible_devices) == (NODE, "local", "GPU-00000000")
    (gpu,) = lease.gpus
    assert (gpu.key, gpu.uuid, gpu.index) == ("gpu:0", "GPU-00000000", 0)
    assert (gpu.declared_bytes, gpu.committed_bytes) == (GIB, GIB)
    assert not gpu.HasField("observed_bytes")
    assert in_seconds(lease.hold_remaining) == pytest.approx(60)
    assert in_seconds(lease.ttl_remaining) == in_seconds(lease.ttl) == 30
    assert in_seconds(lease.queue_wait) < 1
    assert (shown.lease_id, shown.fencing_token, shown.context) == (lease.lease_id, lease.fencing_token, lease.context)


async def test_what_does_not_bind_a_lease_is_unset():
    async with serving() as arbiter:
        _, lease = await arbiter.granted(acquire(max_hold=0))
        assert not lease.HasField("hold_remaining")
        assert not lease.HasField("ttl")
        assert not lease.HasField("ttl_remaining")
        assert lease.request_id.startswith("instance-1-")


async def test_several_gpus_come_together_with_all_their_uuids():
    async with serving(gpus=3) as arbiter:
        _, lease = await arbiter.granted(acquire(gpu={"count": 2, "candidates": ["2", "GPU-00000000", "gpu:2"]}))
        assert sorted(gpu.key for gpu in lease.gpus) == ["gpu:0", "gpu:2"]
        assert lease.visible_devices == ",".join(gpu.uuid for gpu in lease.gpus)


def test_gpus_without_uuid_are_visible_by_index():
    grants = [GrantView(GpuSpec(f"gpu:{i}", i, GIB, uuid=uuid), 0, 0, None, None) for i, uuid in ((3, ""), (1, "U"))]
    assert _visible_devices(grants) == "3,1"


async def test_a_disabled_arbiter_grants_everything_at_once():
    async with serving("enabled=false") as arbiter:
        for _ in range(3):
            await arbiter.granted(acquire())
        assert len((await arbiter.snapshot()).leases) == 3


# -- waits --


async def test_who_has_to_wait_is_told_why_and_behind_whom():
    async with serving() as arbiter:
        await arbiter.granted(acquire(client="first", task_type="TTS"))
        first, told = await arbiter.queued(acquire("mine", client="second", max_wait=60))
        second, behind = await arbiter.queued(acquire(client="third", max_wait=60))
        assert (told.request_id, told.position, told.queue_length) == ("mine", 1, 1)
        assert told.reason == lease_pb2.WAIT_REASON_GPU_BUSY
        assert "TTS of first" in told.detail
        (blocker,) = told.blockers
        assert (blocker.task_type, blocker.client_id, blocker.gpu) == ("TTS", "first", "gpu:0")
        assert blocker.lease_id
        assert in_seconds(blocker.held) < 5
        assert not told.HasField("estimated_wait")
        assert (behind.position, behind.queue_length) == (2, 2)
        first.cancel()
        second.cancel()


async def test_the_queue_moves_and_says_so():
    async with serving() as arbiter:
        _, lease = await arbiter.granted(acquire(max_hold=0))
        first, _ = await arbiter.queued(acquire(priority=50, max_wait=3600, max_hold=0))
        second, _ = await arbiter.queued(acquire(priority=40, max_wait=3600))
        await arbiter.advance(10.0)
        again = await first.read()
        assert again.queued.position == 1, "the regular notice"
        await second.read()
        await arbiter.stub.Release(release(lease))
        granted = await first.read()
        assert granted.HasField("granted")
        assert in_seconds(granted.granted.lease.queue_wait) >= 10
        await arbiter.advance(0.25)
        moved = (await second.read()).queued
        assert moved.position == 1
        assert moved.HasField("estimated_wait")


async def test_a_wait_that_is_too_long_ends_with_everything_to_go_on_by():
    async with serving() as arbiter:
        await arbiter.granted(acquire(client="first", task_type="TTS"))
        call, _ = await arbiter.queued(acquire(max_wait=3))
        await arbiter.advance(3.0)
        answer = await refusal(call.read())
        assert (answer.code, answer.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "WAIT_TIMEOUT")
        assert answer.retry_after == 1.0
        assert answer.metadata is not None
        assert answer.metadata["wait_reason"] == "GPU_BUSY"
        assert (answer.metadata["holder"], answer.metadata["holder_task_type"]) == ("first", "TTS")
        assert answer.metadata["position"] == "1"
        assert float(answer.metadata["waited_seconds"]) >= 3
        assert (await arbiter.snapshot()).queue_length == 0


@pytest.mark.parametrize(
    ("policy", "decision"),
    [(lease_pb2.BUSY_POLICY_SKIP, "SKIP"), (lease_pb2.BUSY_POLICY_FALLBACK_CPU, "FALLBACK_CPU")],
)
async def test_who_does_not_want_to_fail_is_declined(policy: int, decision: str):
    async with serving() as arbiter:
        await arbiter.granted(acquire(client="first"))
        at_once = arbiter.stub.Acquire(acquire(busy_policy=policy, max_wait=0))
        (answer,) = await rest_of(at_once)
        declined = answer.declined
        assert lease_pb2.BusyPolicy.Name(declined.decision) == f"BUSY_POLICY_{decision}"
        assert declined.reason == lease_pb2.WAIT_REASON_GPU_BUSY
        assert [blocker.client_id for blocker in declined.blockers] == ["first"]
        assert in_seconds(declined.retry_after) == 1.0
        later, _ = await arbiter.queued(acquire(busy_policy=policy, max_wait=0.4))
        await arbiter.advance(0.4)
        (answer,) = await rest_of(later)
        assert answer.declined.reason == lease_pb2.WAIT_REASON_TIMEOUT
        assert in_seconds(answer.declined.waited) >= 0.4
        unfit = arbiter.stub.Acquire(acquire(busy_policy=policy, gpu={"memory_bytes": 2**62}))
        (answer,) = await rest_of(unfit)
        assert answer.declined.reason == lease_pb2.WAIT_REASON_INFEASIBLE
        assert not answer.declined.HasField("retry_after")


# -- refusals --


async def test_what_can_never_be_had_is_refused_with_its_reason():
    async with serving("queue_limit=0", gpus=2) as arbiter:
        cases = [
            (acquire(gpu={"candidates": ["gpu:7"]}), "NOT_FOUND", "UNKNOWN_GPU"),
            (acquire(gpu={"count": 3}), "FAILED_PRECONDITION", "INFEASIBLE"),
            (acquire(gpu={"memory_bytes": 25 * GIB}), "FAILED_PRECONDITION", "INFEASIBLE"),
        ]
        for request, code, reason in cases:
            answer = await refusal(arbiter.stub.Acquire(request).read())
            assert (answer.code.name, answer.reason) == (code, reason)
            assert answer.retry_after is None
        for _ in range(2):
            await arbiter.granted(acquire())
        answer = await refusal(arbiter.stub.Acquire(acquire()).read())
        assert (answer.code.name, answer.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
        assert answer.retry_after is not None


async def test_a_client_has_its_limits():
    async with serving("limits.leases_per_client=1", "limits.waiting_per_client=1", gpus=2) as arbiter:
        await arbiter.granted(acquire(client="greedy"))
        answer = await refusal(arbiter.stub.Acquire(acquire(client="greedy")).read())
        assert (answer.code.name, answer.reason) == ("RESOURCE_EXHAUSTED", "CLIENT_LIMIT")
        assert answer.metadata == {"limit": "1", "of": "leases"}
        await arbiter.granted(acquire(client="other"))
        await arbiter.queued(acquire(client="third", max_wait=60))
        answer = await refusal(arbiter.stub.Acquire(acquire(client="third", max_wait=60)).read())
        assert answer.metadata == {"limit": "1", "of": "waiting"}


async def test_lost_gpus_are_unavailable():
    async with serving(gpus=1, monitored=True) as arbiter:
        arbiter.runtime.submit(GpuFailed("gpu:0", "fell off the bus"))
        answer = await refusal(arbiter.stub.Acquire(acquire()).read())
        assert (answer.code.name, answer.reason) == ("UNAVAILABLE", "GPU_UNAVAILABLE")
        assert "fell off the bus" in answer.message


# -- while it is held --


async def test_a_holder_is_asked_to_yield_and_then_revoked():
    async with serving() as arbiter:
        call, lease = await arbiter.granted(acquire())
        await arbiter.admin.Revoke(
            admin_pb2.RevokeRequest(lease_id=lease.lease_id, grace=seconds(5), reason="maintenance")
        )
        asked = (await call.read()).yield_requested
        assert (asked.reason, asked.detail) == (lease_pb2.YIELD_REASON_OPERATOR, "maintenance")
        assert in_seconds(asked.grace) == 5
        assert (await arbiter.snapshot()).leases[0].state == lease_pb2.LEASE_STATE_YIELDING
        await arbiter.advance(5.0)
        (answer,) = await rest_of(call)
        assert answer.ended.reason == lease_pb2.END_REASON_OPERATOR
        assert answer.ended.cause == lease_pb2.YIELD_REASON_OPERATOR


async def test_who_yields_in_time_is_said_to_have_yielded():
    async with serving() as arbiter:
        call, lease = await arbiter.granted(acquire(max_hold=1))
        await arbiter.advance(1.0)
        asked = (await call.read()).yield_requested
        assert asked.reason == lease_pb2.YIELD_REASON_MAX_HOLD
        assert not asked.HasField("grace"), "the watchdog revokes nothing unless told to"
        answer = await arbiter.stub.Release(release(lease))
        assert answer.reason == lease_pb2.END_REASON_YIELDED
        (ended,) = await rest_of(call)
        assert ended.ended.cause == lease_pb2.YIELD_REASON_MAX_HOLD


async def test_the_end_tells_how_the_declaration_compared():
    process = ProcessId(4711, 99)
    async with serving(monitored=True) as arbiter:
        arbiter.machine.trusted[4711] = process

        def read(used: int) -> None:
            seen = (GpuProcess(process, used),)
            reading = GpuReading(arbiter.clock(), used, 24 * GIB - used, processes=seen)
            arbiter.runtime.submit(ReadingTaken("gpu:0", reading))

        read(0)
        call, lease = await arbiter.granted(acquire(holder=holder(pid=4711), gpu={"memory_bytes": GIB}))
        assert process in arbiter.machine.watched
        read(2 * GIB)
        (gpu,) = (await arbiter.snapshot()).leases[0].gpus
        assert (gpu.observed_bytes, gpu.observed_peak_bytes) == (2 * GIB, 2 * GIB)
        answer = await arbiter.stub.Release(release(lease))
        assert (answer.memory_verdict, answer.memory_peak_bytes) == (lease_pb2.MEMORY_VERDICT_OVER, 2 * GIB)
        (ended,) = await rest_of(call)
        assert (ended.ended.memory_verdict, ended.ended.memory_peak_bytes) == (answer.memory_verdict, 2 * GIB)
        assert process not in arbiter.machine.watched
