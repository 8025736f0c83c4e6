"""One run of a stage, under its lease.

Law: what the work raises, and what became of its lease, comes back as an End; the lease is given back first. Only a
cancellation from outside goes on.
"""

import asyncio
import hashlib
import inspect
from collections.abc import Callable
from typing import Any

from gpuarbiter._aio import backend
from gpuarbiter._aio.lease import AsyncLease
from gpuarbiter._aio.options import AsyncLeaseOptions
from gpuarbiter._aio.running import AsyncRunning
from gpuarbiter._errors import LeaseLost
from gpuarbiter._outcomes import Declined
from gpuarbiter._values import WorkContext
from gpuarbiter.pipeline._records import End, Run
from gpuarbiter.pipeline._stage import StageRun, Work
from gpuarbiter.pipeline._values import Device, SkipJob

# The contract's limit of a sequence's group.
_MAX_GROUP = 128


class Running:
    """A run at work.

    Args:
        began: told of where the work begins, when it does.
        pipeline_id: keeps sessions of the same name in other pipelines of this program apart.
    """

    def __init__(self, arbiter: AsyncRunning, run: Run, pipeline_id: str, began: Callable[[Device], None]) -> None:
        self._arbiter = arbiter
        self._run = run
        self._pipeline_id = pipeline_id
        self._began = began
        self._task: asyncio.Task[Any] | None = None
        self._at_work = False
        self._lost: LeaseLost | None = None

    async def end(self) -> End:
        """Runs it to its end."""
        self._task = asyncio.current_task()
        try:
            value = await self._value()
        except SkipJob as skip:
            return End("SKIPPED", error=skip)
        except Declined as declined:
            # One that comes out of the work itself is the work's own failure.
            return End("DECLINED" if self._run.began_at is None else "FAILED", error=declined)
        except asyncio.CancelledError:
            if self._lost is None:
                raise
            return End("FAILED", error=self._lost)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is this job's alone
            return End("FAILED", error=self._lost or error)
        # What was made on a GPU that was somebody else's by then is not to be relied on.
        return End(value=value) if self._lost is None else End("FAILED", error=self._lost)

    async def _value(self) -> Any:
        stage = self._run.stage
        if not stage.gpu:
            return await self._work(stage.work, "", None)
        cpu = stage.cpu
        if cpu is None:
            return await self._arbiter.run(stage.task_type or stage.name, self._on_gpu, **self._options())
        return await self._arbiter.run(
            stage.task_type or stage.name,
            self._on_gpu,
            cpu=lambda: self._work(cpu, "CPU", None),
            **self._options(),
        )

    async def _on_gpu(self, lease: AsyncLease) -> Any:
        return await self._work(self._run.stage.work, "GPU", lease)

    async def _work(self, work: Work, device: Device, lease: AsyncLease | None) -> Any:
        job = self._run.job
        self._began(device)
        result = work(job.value, StageRun(job.session.session_id, job.index, self._run.stage.name, lease))
        if not inspect.isawaitable(result):
            raise TypeError(f"the work of {self._run.stage.name} is no async function; asyncio.to_thread makes one")
        self._at_work = True
        try:
            return await result
        finally:
            self._at_work = False

    def _options(self) -> AsyncLeaseOptions:
        job, stage = self._run.job, self._run.stage
        told = StageRun(job.session.session_id, job.index, stage.name, None)
        context = WorkContext(told.job_id, told.session_id, told.utterance_index, stage.name)
        options: AsyncLeaseOptions = {**stage.lease, "context": context, "on_lost": self._on_lost}
        if stage.sequenced:
            options["sequence"] = (_group(f"{self._pipeline_id}/{stage.name}/{told.session_id}"), job.index)
        return options

    async def _on_lost(self, lease: AsyncLease) -> None:
        """Somebody else may use the GPU from now on: the work is to end."""
        if self._at_work and self._task is not None:
            self._lost = LeaseLost(f"lease {lease.lease_id} was lost: {lease.lost_reason}", reason=lease.lost_reason)
            self._task.cancel()
        users = self._run.stage.lease.get("on_lost")
        if users is not None:
            await backend.call_back(users, lease)


def _group(name: str) -> str:
    return name if len(name) <= _MAX_GROUP else hashlib.sha256(name.encode()).hexdigest()
