"""Admission by memory: what is declared, what is seen, and what is not back yet."""

import os
from collections.abc import Callable
from pathlib import Path

from e2e.harness.client import Client
from e2e.harness.holders import Holder
from e2e.harness.waiting import eventually
from fakes.nvml import FakeNvml
from support.messages import GIB
from support.process import Arbiterd

Start = Callable[..., Arbiterd]
Connect = Callable[[Arbiterd], Client]
Hold = Callable[..., Holder]


async def test_shared_leases_run_side_by_side_while_they_fit(arbiter: Arbiterd, connect: Connect):
    client = connect(arbiter)
    one, two = client.acquire(memory=10 * GIB, shared=True), client.acquire(memory=10 * GIB, shared=True)
    lease, _ = await one.granted(), await two.granted()
    gpu = await client.gpu()
    assert gpu.memory.committed_bytes == 20 * GIB
    assert gpu.memory.admissible_bytes == 24 * GIB - gpu.memory.headroom_bytes - 20 * GIB
    third = client.acquire(memory=6 * GIB, shared=True)
    await third.waits_for("MEMORY")
    await client.release(lease)
    assert (await third.granted()).gpus[0].committed_bytes == 6 * GIB


async def test_memory_without_a_lease_holds_back_what_no_longer_fits(arbiterd: Start, connect: Connect, tmp_path: Path):
    fake = FakeNvml(tmp_path)
    client = connect(arbiterd("gpus=auto", more=fake.env))
    fake.allocate(0, os.getpid(), 10 * GIB)

    await figures(client, unleased=10 * GIB, committed=0)
    gpu = await client.gpu(processes=True)
    assert [(seen.pid, seen.memory_used_bytes, seen.lease_id) for seen in gpu.processes] == [
        (os.getpid(), 10 * GIB, "")
    ]
    large = client.acquire(memory=16 * GIB, shared=True)
    await large.waits_for("MEMORY")
    fake.free(0, os.getpid())
    await large.granted()
    assert (await client.gpu()).memory.unleased_bytes == 0


async def test_what_fits_beside_memory_without_a_lease_is_granted(arbiterd: Start, connect: Connect, tmp_path: Path):
    fake = FakeNvml(tmp_path)
    fake.allocate(0, os.getpid(), 10 * GIB)
    client = connect(arbiterd("gpus=auto", more=fake.env))
    lease = await client.acquire(memory=12 * GIB, shared=True).granted()
    assert lease.gpus[0].key == "gpu:0"
    # One that declares nothing takes what is left, whatever that is.
    await client.release(lease)
    alone = await client.acquire().granted()
    gpu = await client.gpu()
    assert alone.gpus[0].committed_bytes == gpu.memory.total_bytes - gpu.memory.headroom_bytes - 10 * GIB
    assert gpu.memory.admissible_bytes == 0


async def test_a_model_that_stays_loaded_is_not_charged_twice(
    arbiterd: Start, connect: Connect, holder: Hold, tmp_path: Path
):
    fake = FakeNvml(tmp_path)
    arbiter = arbiterd("gpus=auto", more=fake.env)
    client = connect(arbiter)
    service = holder(arbiter, memory=6 * GIB, shared=True)
    await service.ready()
    fake.allocate(0, service.pid, 4 * GIB)
    await figures(client, unleased=4 * GIB, committed=0)
    for _ in range(2):  # it stays loaded between leases
        await service.granted()
        await figures(client, unleased=0, committed=6 * GIB)
        await service.ask("release", "released")
        await figures(client, unleased=4 * GIB, committed=0)


async def test_a_loaded_model_of_a_holder_that_nobody_knows_counts_beside_its_declaration(
    arbiterd: Start, connect: Connect, holder: Hold, tmp_path: Path
):
    fake = FakeNvml(tmp_path)
    arbiter = arbiterd("gpus=auto", more=fake.env)
    client = connect(arbiter)
    service = holder(arbiter, "nobody", memory=6 * GIB, shared=True)
    await service.ready()
    fake.allocate(0, service.pid, 4 * GIB)
    await figures(client, unleased=4 * GIB, committed=0)
    await service.granted()
    await figures(client, unleased=4 * GIB, committed=6 * GIB)


async def test_memory_that_is_not_back_yet_is_waited_for_by_name(
    arbiterd: Start, connect: Connect, holder: Hold, tmp_path: Path
):
    fake = FakeNvml(tmp_path)
    arbiter = arbiterd("gpus=auto", more=fake.env)
    client = connect(arbiter)
    job = holder(arbiter, memory=20 * GIB, shared=True)
    await job.ready()
    lease = await job.granted()
    fake.allocate(0, job.pid, 20 * GIB)
    await figures(client, unleased=0, committed=20 * GIB)
    await job.ask("release", "released")
    big = client.acquire(memory=20 * GIB, shared=True)
    await big.waits_for("MEMORY_RECOVERY")
    # The slot was free at once.
    assert not (await client.snapshot()).leases
    fake.free(0, job.pid)
    await big.granted()
    recovered = await client.happens("MEMORY_RECOVERED", lease["leaseId"])
    assert recovered.detail.startswith("after ")
    assert recovered.gpus == ["gpu:0"]


async def figures(client: Client, *, unleased: int, committed: int) -> None:
    """Waits until the ledger of the GPU shows these figures, and what follows from them."""

    async def shown() -> bool:
        memory = (await client.gpu()).memory
        admissible = memory.total_bytes - memory.headroom_bytes - unleased - committed
        now = (memory.unleased_bytes, memory.committed_bytes, memory.admissible_bytes)
        return now == (unleased, committed, admissible)

    await eventually(shown, f"unleased {unleased}, committed {committed}")
