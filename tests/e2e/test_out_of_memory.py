"""R14: a holder runs out of memory: it is counted, declares more the next time, and costs nobody else anything."""

import urllib.request
from collections.abc import Callable

from e2e.harness.client import Client
from gpuarbiter.v1 import lease_pb2
from support.process import Arbiterd
from support.server import GIB

Start = Callable[..., Arbiterd]
Connect = Callable[[Arbiterd], Client]
OUT_OF_MEMORY = lease_pb2.WorkReport(
    result=lease_pb2.WORK_RESULT_OUT_OF_MEMORY, device=lease_pb2.WORK_DEVICE_GPU, peak_memory_bytes=4 * GIB
)


def counted(arbiter: Arbiterd) -> float:
    with urllib.request.urlopen(f"http://{arbiter.http}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith("gpu_arbiter_work_total{") and 'result="out_of_memory"' in line
    )


async def test_who_ran_out_of_memory_declares_more_and_its_neighbour_is_left_alone(arbiterd: Start, connect: Connect):
    arbiter = arbiterd("policies={LLM: {raise_after_out_of_memory: true}, BATCH: {}}")
    client = connect(arbiter)
    neighbour = client.acquire("LLM", "neighbour", memory=2 * GIB, shared=True)
    held = await neighbour.granted()
    for task_type, next_declared in (("LLM", 5 * GIB), ("BATCH", 2 * GIB)):
        lease = await client.acquire(task_type, "greedy", memory=2 * GIB, shared=True).granted()
        await client.release(lease, report=OUT_OF_MEMORY)
        again = await client.acquire(task_type, "greedy", memory=2 * GIB, shared=True).granted()
        assert again.gpus[0].declared_bytes == next_declared
        await client.release(again)
    assert counted(arbiter) == 2
    (left,) = (await client.snapshot()).leases
    assert (left.lease_id, left.gpus[0].declared_bytes) == (held.lease_id, 2 * GIB)
