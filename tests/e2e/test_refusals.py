"""What is refused says why, what is in the way, and when to come again."""

from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from e2e.harness.client import Client
from support.messages import GIB
from support.process import Arbiterd
from support.refusals import read, refusal

Start = Callable[..., Arbiterd]
Connect = Callable[[Arbiterd], Client]


async def test_a_full_queue_names_the_holder_in_the_way_and_when_to_retry(arbiterd: Start, connect: Connect):
    client = connect(arbiterd("gpus=sim:1x24GiB", "queue_limit=1"))
    held = client.acquire("ASR", client="asr-worker-0")
    lease = await held.granted()
    waiting = client.acquire(client="second")
    queued = await waiting.waits_for("GPU_BUSY")
    assert [(b.client_id, b.task_type, b.lease_id) for b in queued.blockers] == [
        ("asr-worker-0", "ASR", lease.lease_id)
    ]
    assert "asr-worker-0" in queued.detail
    refusal = await client.acquire(client="third").refusal()
    assert (refusal.code.name, refusal.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
    assert refusal.retry_after is not None
    assert refusal.retry_after > 0
    assert refusal.metadata["holder"] == "asr-worker-0"
    assert refusal.metadata["holder_task_type"] == "ASR"
    assert refusal.metadata["queue_limit"] == "1"
    assert float(refusal.metadata["held_seconds"]) >= 0
    assert "asr-worker-0" in refusal.message
    # A request that does not wait needs no place in the queue, and one that declines is declined.
    assert (await client.acquire(client="third", max_wait=0).refusal()).reason == "WAIT_TIMEOUT"
    declined = await client.acquire(client="third", busy_policy="SKIP").next("declined")
    assert declined.reason == 12  # QUEUE_FULL
    assert declined.blockers[0].client_id == "asr-worker-0"
    # Nobody was displaced.
    await client.release(lease)
    assert (await waiting.granted()).holder.client_id == "second"


async def test_a_wait_that_is_over_says_what_was_in_the_way(arbiter: Arbiterd, connect: Connect):
    client = connect(arbiter)
    held = client.acquire("ASR", client="asr-worker-0")
    await held.granted()
    refusal = await client.acquire(max_wait=0.1).refusal()
    assert (refusal.code.name, refusal.reason) == ("RESOURCE_EXHAUSTED", "WAIT_TIMEOUT")
    assert refusal.retry_after is not None
    assert refusal.metadata["holder"] == "asr-worker-0"
    assert refusal.metadata["wait_reason"] == "GPU_BUSY"
    assert refusal.metadata["position"] == "1"
    assert float(refusal.metadata["waited_seconds"]) >= 0.1


@pytest.mark.parametrize("name", ["gpu:7", "7", "GPU-00000000-0000-0000-0000-000000000000"])
async def test_an_unknown_gpu_is_not_found(arbiter: Arbiterd, connect: Connect, name: str):
    client = connect(arbiter)
    refusal = await client.acquire(candidates=[name]).refusal()
    assert (refusal.code.name, refusal.reason) == ("NOT_FOUND", "UNKNOWN_GPU")
    assert name in refusal.message
    assert refusal.metadata["known"] == "gpu:0"


async def test_a_request_larger_than_any_gpu_is_infeasible_at_once(arbiterd: Start, connect: Connect):
    client = connect(arbiterd("gpus=sim:2x24GiB"))
    for wishes in ({"memory": 30 * GIB, "shared": True}, {"memory": 30 * GIB}, {"count": 3}):
        asked = client.acquire(**wishes)
        with pytest.raises(grpc.RpcError) as failed:
            await asked.read()  # no Queued before it
        refusal = read(failed.value)
        assert (refusal.code.name, refusal.reason) == ("FAILED_PRECONDITION", "INFEASIBLE")
    declined = await client.acquire(memory=30 * GIB, busy_policy="FALLBACK_CPU").next("declined")
    assert (declined.decision, declined.reason) == (3, 14)  # FALLBACK_CPU, INFEASIBLE


async def test_a_lease_of_nobody_is_not_found(arbiter: Arbiterd, connect: Connect):
    client = connect(arbiter)
    refused = await refusal(client.release(lease_id="no-such-lease"))
    assert (refused.code.name, refused.reason) == ("NOT_FOUND", "UNKNOWN_LEASE")


def test_an_unknown_key_stops_the_start_with_its_name_and_the_allowed_ones(launch: Start):
    refused = launch("queue_limits=3")
    assert refused.wait() == 2
    assert "queue_limits" in refused.output
    assert "queue_limit" in refused.output.replace("queue_limits", "")
    assert "cooldown" in refused.output
    assert "Traceback" not in refused.output


def test_a_bad_value_in_the_environment_stops_the_start(launch: Start):
    refused = launch(more={"GPU_ARBITER_COOLDOWN": "soon"})
    assert refused.wait() == 2
    assert "GPU_ARBITER_COOLDOWN" in refused.output
    assert "soon" in refused.output
    assert "400ms" in refused.output


def test_a_second_arbiter_on_the_same_address_refuses_to_start(arbiterd: Start, launch: Start, tmp_path: Path):
    first = arbiterd()
    for taken in (f"listen.grpc={first.grpc}", f"listen.http={first.http}", "listen.socket=auto"):
        second = launch("listen.socket=off", taken, f"journal.path={tmp_path}")
        assert second.wait() == 1
        address = first.socket if taken == "listen.socket=auto" else taken.partition("=")[2]
        assert address in second.output
        assert "another" in second.output
