"""The whole server on real hardware: processes that take device memory are seen, attributed and reckoned with."""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.harness.client import Client
from e2e.harness.waiting import eventually
from gpuarbiter.v1 import lease_pb2, snapshot_pb2
from gpuarbiter_server.core.model import GpuSpec
from gpuarbiter_server.gpu.procfs import identify, own_pid_namespace
from support.messages import GIB
from support.process import Arbiterd, running

pytestmark = pytest.mark.hardware

# What the driver rounds, and what a CUDA context takes beside the memory that was asked for.
CONTEXT_BYTES = 2 * GIB

GPU_ARBITER = Path(sys.executable).with_name("gpu-arbiter")
CUDA_WORKER = Path(__file__).with_name("cuda_worker.py")

Make = Callable[..., Any]


@pytest.fixture
def arbiter(spec: GpuSpec) -> Iterator[Arbiterd]:
    assert spec.source == "nvml"
    with (
        tempfile.TemporaryDirectory(prefix="gpu-arbiter-") as folder,
        running(Path(folder), "gpus=auto", "cooldown=10m", "defaults.max_hold=0s", "shutdown_grace=0s") as started,
    ):
        yield started
    assert "Traceback" not in started.output


class Node:
    """The arbiter, and one GPU of the machine."""

    def __init__(self, client: Client, spec: GpuSpec) -> None:
        self.client = client
        self.key = spec.key

    async def gpu(self) -> snapshot_pb2.GpuSnapshot:
        return await self.client.gpu(self.key, processes=True)

    async def shows(self, condition: Callable[[snapshot_pb2.GpuSnapshot], bool], what: str) -> snapshot_pb2.GpuSnapshot:
        """Waits until the snapshot of the GPU is as it should be."""

        async def look() -> snapshot_pb2.GpuSnapshot | None:
            gpu = await self.gpu()
            return gpu if condition(gpu) else None

        found = await eventually(look, what)
        assert found is not None
        return found

    def acquire(self, client: str | lease_pb2.Holder = "test", **wishes: Any) -> Any:
        return self.client.acquire("TASK", client, candidates=[self.key], **wishes)


@pytest.fixture
async def node(arbiter: Arbiterd, spec: GpuSpec) -> AsyncIterator[Node]:
    client = Client(arbiter.grpc)
    made = Node(client, spec)
    await made.shows(lambda gpu: gpu.health == snapshot_pb2.GPU_HEALTH_OK, "a first reading")
    yield made
    await client.close()


@pytest.fixture
def known(node: Node) -> Callable[[int], Awaitable[lease_pb2.Holder]]:
    """Waits until a process is on the GPU; the holder that it is, with the facts that prove it.

    Skips where the driver's pids are not ours.
    """

    async def holder(pid: int) -> lease_pb2.Holder:
        async def listed() -> bool:
            return any(seen.pid == pid for seen in (await node.gpu()).processes)

        try:
            await eventually(listed, "the driver to list the worker")
        except AssertionError:
            pytest.skip("the driver does not tell pids of this PID namespace")
        process = identify(pid)
        assert process is not None
        return lease_pb2.Holder(
            client_id=f"worker-{process.pid}",
            pid=process.pid,
            pid_namespace=own_pid_namespace(),
            process_start_ticks=process.start_ticks,
        )

    return holder


async def test_memory_of_a_holder_is_attributed_to_its_lease(node: Node, worker: Make, known: Make):
    before = (await node.gpu()).memory.unleased_bytes
    job = worker()
    holder = await known(job.pid)
    lease = await node.acquire(holder, memory=4 * GIB + CONTEXT_BYTES, shared=True).granted()
    assert lease.visible_devices == lease.gpus[0].uuid
    job.do(f"alloc {2 * GIB}")

    async def observed() -> int:
        leases = (await node.client.snapshot()).leases
        found = next(each for each in leases if each.lease_id == lease.lease_id).gpus[0].observed_bytes
        return found if found >= 2 * GIB else 0

    seen = await eventually(observed, "the memory to be attributed")
    assert seen < 2 * GIB + CONTEXT_BYTES
    gpu = await node.gpu()
    assert [each.lease_id for each in gpu.processes if each.pid == job.pid] == [lease.lease_id]
    # Within its declaration: committed as declared, and nothing of it counts as anybody else's.
    assert gpu.memory.committed_bytes == 4 * GIB + CONTEXT_BYTES
    assert gpu.memory.unleased_bytes == pytest.approx(before, abs=GIB / 2)


async def test_memory_without_a_lease_holds_back_what_no_longer_fits(node: Node, worker: Make):
    before = (await node.gpu()).memory
    job = worker()
    job.do(f"alloc {4 * GIB}")
    gpu = await node.shows(
        lambda gpu: gpu.memory.unleased_bytes >= before.unleased_bytes + 4 * GIB, "4 GiB more without a lease"
    )
    assert gpu.memory.admissible_bytes <= before.admissible_bytes - 4 * GIB
    large = node.acquire(memory=before.admissible_bytes - GIB, shared=True)
    await large.waits_for("MEMORY")
    fits = await node.acquire("beside", memory=GIB, shared=True, max_wait=0).refusal()
    assert fits.reason == "WAIT_TIMEOUT"  # it would fit, but comes after the large one
    job.kill()
    await large.granted()


async def test_a_loaded_model_is_not_charged_twice(node: Node, worker: Make, known: Make):
    before = (await node.gpu()).memory
    job = worker()
    job.do(f"alloc {4 * GIB}")
    holder = await known(job.pid)
    await node.shows(
        lambda gpu: gpu.memory.unleased_bytes >= before.unleased_bytes + 4 * GIB, "the model to count as unleased"
    )
    await node.acquire(holder, memory=6 * GIB + CONTEXT_BYTES, shared=True).granted()
    gpu = await node.shows(
        lambda gpu: gpu.memory.unleased_bytes < before.unleased_bytes + GIB, "the model to count as the lease's"
    )
    assert gpu.memory.committed_bytes == 6 * GIB + CONTEXT_BYTES


async def test_memory_that_is_not_back_yet_is_waited_for_by_name(node: Node, worker: Make, known: Make):
    job = worker()
    holder = await known(job.pid)
    # The driver keeps some for itself once it was used.
    whole = (await node.gpu()).memory.admissible_bytes - GIB
    lease = await node.acquire(holder, memory=whole, shared=True).granted()
    job.do(f"alloc {whole // 2}")
    await node.shows(lambda gpu: gpu.sample.memory_used_bytes >= whole // 2, "the memory to be in use")
    await node.client.release(lease)
    big = node.acquire("next", memory=whole, shared=True)
    await big.waits_for("MEMORY_RECOVERY")
    job.do("free")
    await big.granted()


async def test_the_death_of_a_holder_hands_the_gpu_on(node: Node, worker: Make, known: Make):
    job = worker()
    lease = await node.acquire(await known(job.pid), request_id="job", ttl=600).granted()
    job.do(f"alloc {2 * GIB}")
    waiting = node.acquire("next")
    await waiting.waits_for("GPU_BUSY")
    job.kill()
    await waiting.granted()
    ended = await node.client.happens("ENDED", lease.lease_id)
    assert ended.detail.startswith("HOLDER_DIED")


@pytest.fixture
def wrapped(arbiter: Arbiterd, node: Node) -> Iterator[subprocess.Popen[str]]:
    """A CUDA program under `gpu-arbiter run`."""
    command = [GPU_ARBITER, "run", "--address", arbiter.grpc, "--gpu", node.key, "--", sys.executable, CUDA_WORKER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as wrapper:
        yield wrapper
        wrapper.kill()


async def test_a_killed_wrapper_takes_its_command_along_before_the_gpu_is_granted(
    wrapped: subprocess.Popen[str], node: Node, known: Make
):
    assert wrapped.stdout is not None
    # It says so once CUDA is up: the UUID that it was given is that of a real device.
    pid = int(await asyncio.to_thread(wrapped.stdout.readline))
    await known(pid)
    gpu = await node.gpu()
    assert [bool(seen.lease_id) for seen in gpu.processes if seen.pid == pid] == [True]
    waiting = node.acquire("next")
    await waiting.waits_for("GPU_BUSY")
    wrapped.kill()
    await waiting.granted()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
