"""A pipeline on a real arbiter that is killed, and that revokes a lease: nothing is lost, and nothing doubled."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2e.harness.restarting import Restarting
from e2e.harness.waiting import eventually
from fakes.polling import async_until
from gpuarbiter import AsyncArbiter, LeaseLost
from gpuarbiter.pipeline import JobResult, Pipeline, Stage, StageRun


@pytest.fixture
async def arbiter() -> AsyncIterator[Restarting]:
    """An arbiter with two simulated GPUs."""
    with tempfile.TemporaryDirectory(prefix="gpu-arbiter-e2e-") as made:
        started = Restarting(Path(made), "gpus=sim:2x24GiB", "cooldown=0s", "shutdown_grace=0s")
        await started.start()
        yield started
        started.stop()
    assert "Traceback" not in started.output, started.output


async def test_an_arbiter_that_is_killed_costs_no_job_and_one_that_revokes_only_its_stage(arbiter: Restarting):
    at_work: list[StageRun] = []
    go_on = asyncio.Event()

    async def work(value: str, run: StageRun) -> str:
        at_work.append(run)
        await go_on.wait()
        return f"{value}>{run.stage}"

    out: list[JobResult] = []
    stages = [Stage(name, work, concurrency=3, lease={"max_wait": "30s"}) for name in ("ASR", "NMT")]
    async with AsyncArbiter(arbiter.grpc) as client, Pipeline(client, stages, hold_back=None) as pipeline:
        sessions = [pipeline.session(f"call-{number}", on_result=out.append) for number in range(3)]
        for number in range(3):
            for session in sessions:
                await session.submit(f"u{number}")

        async def held_and_queued() -> bool:
            return len(at_work) == 2 and (await client.snapshot()).queue_length == 1

        await eventually(held_and_queued, "two at work, and one that waits")
        await arbiter.restart()
        revoked = at_work[0]
        lease = revoked.lease
        assert lease is not None
        await async_until(lambda: not lease.uncertain, "for the lease to be joined again")
        async with AsyncArbiter(arbiter.grpc) as operator:
            await operator.admin.revoke(lease.lease_id)
        await async_until(lambda: pipeline.statistics().stages["ASR"].failed, "for the revoked one to fail")
        go_on.set()
    assert {each.session_id for each in out} == {session.session_id for session in sessions}
    for session in sessions:
        mine = [each for each in out if each.session_id == session.session_id]
        assert [each.utterance_index for each in mine] == [0, 1, 2]
        for each in mine:
            if (each.session_id, each.utterance_index) == (revoked.session_id, revoked.utterance_index):
                assert isinstance(each.error, LeaseLost)
                assert each.state == "failed"
            else:
                assert (each.state, each.value) == ("done", f"u{each.utterance_index}>ASR>NMT"), each
    async with AsyncArbiter(arbiter.grpc) as client:
        assert not (await client.snapshot()).leases
