"""Holders that die, leave children behind, or are frozen: each lease ends by its bound, and the GPU goes on."""

import os
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.harness.client import Client, event_names
from e2e.harness.holders import Holder, Told, end
from e2e.harness.waiting import eventually
from fakes.nvml import FakeNvml
from gpuarbiter.v1 import lease_pb2
from support import soak
from support.messages import GIB
from support.process import Arbiterd
from support.refusals import refusal

Start = Callable[..., Arbiterd]
Connect = Callable[[Arbiterd], Client]
Hold = Callable[..., Holder]

GRANTED_ON_SECONDS = 1.0

LIBRARY_HOLDER = Path(__file__).parent / "harness" / "library_holder.py"


async def test_the_death_of_a_holder_ends_its_lease_at_once(arbiterd: Start, connect: Connect, holder: Hold):
    arbiter = arbiterd("cooldown=10m")
    client = connect(arbiter)
    # It could be joined for a long time: only its death can end it so soon.
    job = holder(arbiter, request_id="job-1", ttl=600)
    lease = await job.granted()
    waiting = client.acquire()
    await waiting.waits_for("GPU_BUSY")
    job.kill()
    await waiting.granted()
    ended = await client.happens("ENDED", lease["leaseId"])
    assert ended.detail == f"HOLDER_DIED: process {job.pid} is gone"
    # Nothing of it is on the GPU, so there is nothing to cool down from.
    assert not await client.events("COOLDOWN_STARTED")


async def test_after_the_death_of_a_holder_its_gpu_is_granted_on_within_a_second(
    arbiterd: Start, connect: Connect, holder: Hold, capsys: pytest.CaptureFixture[str]
):
    arbiter = arbiterd("cooldown=10m")
    client = connect(arbiter)
    took: list[float] = []
    for number in range(50 if soak.wanted() else 4):
        job = holder(arbiter, request_id=f"job-{number}", ttl=600)
        await job.granted()
        waiting = client.acquire()
        await waiting.waits_for("GPU_BUSY")
        killed = time.time()
        job.kill()
        lease = await waiting.granted()
        took.append(lease.grant_time.ToNanoseconds() / 1e9 - killed)
        await client.release(lease)
    with soak.figures(capsys):
        print(
            f"\n{len(took)} holders killed: SIGKILL to next grant, p50 {1000 * statistics.median(took):.1f} ms,"
            f" max {1000 * max(took):.1f} ms"
        )
    assert max(took) <= GRANTED_ON_SECONDS


@pytest.mark.parametrize("line", ["dies with it", "broke before"])
async def test_the_death_of_a_waiting_client_gives_its_place_back(
    arbiterd: Start, connect: Connect, holder: Hold, line: str
):
    arbiter = arbiterd("defaults.disconnect_grace=10m")
    client = connect(arbiter)
    held = client.acquire()
    await held.granted()
    job = holder(arbiter, request_id="job-1")
    job.send("acquire")
    await job.until("queued")
    if line == "broke before":
        job.send("hang-up")
        await client.happens("DETACHED")
    assert (await client.snapshot()).queue_length == 1
    job.kill()

    async def empty() -> bool:
        return (await client.snapshot()).queue_length == 0

    await eventually(empty, "the queue to be empty")


async def test_an_attested_holder_is_tied_to_its_process(arbiter: Arbiterd, connect: Connect, holder: Hold):
    client = connect(arbiter)
    socket = arbiter.socket.removeprefix("unix:") + ".attest"
    # It declares no pid at all; the kernel told the arbiter.
    job = holder(arbiter, f"attestation={socket}", request_id="attested", ttl=600)
    lease = await job.granted()
    assert "pid" not in lease["holder"]
    job.kill()
    ended = await client.happens("ENDED", lease["leaseId"])
    assert ended.detail == f"HOLDER_DIED: process {job.pid} is gone"


async def test_without_proof_of_its_process_a_holder_lives_by_its_ttl(
    arbiter: Arbiterd, connect: Connect, holder: Hold
):
    client = connect(arbiter)
    job = holder(arbiter, "nobody", request_id="unproved", ttl=0.3)
    lease = await job.granted()
    job.kill()
    await client.happens("DETACHED", lease["leaseId"])
    ended = await client.happens("ENDED", lease["leaseId"])
    assert ended.detail == "TTL_EXPIRED: nothing joined or renewed for 0.3 s"


@pytest.mark.parametrize("proof", ["NVML no longer shows it", "it is dead, though the driver lags behind"])
async def test_a_child_that_outlives_its_holder_keeps_the_gpu_in_cooldown(
    arbiterd: Start, connect: Connect, holder: Hold, tmp_path: Path, proof: str
):
    fake = FakeNvml(tmp_path)
    arbiter = arbiterd("gpus=auto", "cooldown=10m", more=fake.env)
    client = connect(arbiter)
    job = holder(arbiter, request_id="job-1")
    lease = await job.granted()
    child = await job.child()
    fake.allocate(0, child, 2 * GIB)

    async def attributed() -> bool:
        gpu = await client.gpu(processes=True)
        return [(seen.pid, seen.lease_id) for seen in gpu.processes] == [(child, lease["leaseId"])]

    await eventually(attributed, "the child's memory to be attributed to the lease")
    waiting = client.acquire()
    await waiting.waits_for("GPU_BUSY")
    job.kill()
    await waiting.waits_for("COOLDOWN")
    started = await client.happens("COOLDOWN_STARTED", lease["leaseId"])
    assert started.gpus == ["gpu:0"]
    assert (await client.gpu()).cooldown_remaining.seconds > 500
    if proof.startswith("NVML"):
        fake.free(0, child)
    else:
        end(child)
    await waiting.granted()
    over = await client.happens("COOLDOWN_ENDED", lease["leaseId"])
    assert "gone" in over.detail or "dead" in over.detail


async def test_a_child_with_a_model_loaded_before_the_lease_keeps_the_gpu_too(
    arbiterd: Start, connect: Connect, holder: Hold, tmp_path: Path
):
    fake = FakeNvml(tmp_path)
    arbiter = arbiterd("gpus=auto", "cooldown=10m", more=fake.env)
    client = connect(arbiter)
    job = holder(arbiter, request_id="job-1")
    child = await job.child()
    fake.allocate(0, child, 2 * GIB)
    await eventually(lambda: _on_gpu(client, child), "the child to be seen")
    lease = await job.granted()
    waiting = client.acquire()
    await waiting.waits_for("GPU_BUSY")
    job.kill()
    await waiting.waits_for("COOLDOWN")
    fake.free(0, child)
    await waiting.granted()
    assert await client.events("COOLDOWN_STARTED", lease_id=lease["leaseId"])


async def test_a_cooldown_ends_with_time(arbiterd: Start, connect: Connect, holder: Hold, tmp_path: Path):
    fake = FakeNvml(tmp_path)
    arbiter = arbiterd("gpus=auto", "cooldown=500ms", more=fake.env)
    client = connect(arbiter)
    job = holder(arbiter, request_id="job-1")
    await job.granted()
    fake.allocate(0, await job.child(), 2 * GIB)
    waiting = client.acquire()
    await waiting.waits_for("GPU_BUSY")
    job.kill()
    await waiting.waits_for("COOLDOWN")
    await waiting.granted()
    assert (await client.happens("COOLDOWN_ENDED")).detail.endswith("the time is over")


@pytest.mark.parametrize("form", ["detached", "carried by a stream"])
async def test_a_holder_that_was_frozen_past_its_ttl_has_lost_its_lease(arbiter: Arbiterd, connect: Connect, form: str):
    client = connect(arbiter)
    frozen = Told([sys.executable, LIBRARY_HOLDER, arbiter.grpc, "0.5", form])
    try:
        told = await frozen.until("granted")
        old = lease_pb2.Lease(lease_id=told["lease_id"], fencing_token=told["fencing_token"])
        frozen.signal(signal.SIGSTOP)
        # With a stream, the arbiter has to notice first that nobody answers there any more.
        ended = await client.happens("ENDED", old.lease_id)
        assert ended.detail == "TTL_EXPIRED: nothing joined or renewed for 0.5 s"
        successor = await client.acquire(client="successor", ttl=600, request_id=f"after {form}").granted()
        assert successor.fencing_token > old.fencing_token
        frozen.signal(signal.SIGCONT)
        lost = await frozen.until("lost")
        assert lost["reason"] == "TTL_EXPIRED"
        assert (await frozen.until("released"))["already_ended"]
    finally:
        frozen.signal(signal.SIGCONT)
        frozen.close()
    # The bare calls, as any other client would make them late.
    for call in (client.renew(old), client.resize(old, memory_bytes=GIB)):
        refused = await refusal(call)
        assert (refused.code.name, refused.reason) == ("FAILED_PRECONDITION", "LEASE_ENDED")
        assert refused.metadata["end_reason"] == "TTL_EXPIRED"
    assert (await client.release(old)).already_ended
    # Nobody else's lease was touched.
    assert [lease.lease_id for lease in (await client.snapshot()).leases] == [successor.lease_id]
    assert event_names(await client.events(lease_id=successor.lease_id)) == ["GRANTED"]


async def test_processes_of_before_the_lease_are_no_reason_to_cool_down(
    arbiterd: Start, connect: Connect, holder: Hold, tmp_path: Path
):
    fake = FakeNvml(tmp_path)
    fake.allocate(0, os.getpid(), 1 * GIB)
    arbiter = arbiterd("gpus=auto", "cooldown=10m", more=fake.env)
    client = connect(arbiter)
    job = holder(arbiter, request_id="job-1")
    await job.granted()
    waiting = client.acquire()
    await waiting.waits_for("GPU_BUSY")
    job.kill()
    await waiting.granted()
    assert not await client.events("COOLDOWN_STARTED")


async def _on_gpu(client: Client, pid: int) -> bool:
    return any(seen.pid == pid for seen in (await client.gpu(processes=True)).processes)
