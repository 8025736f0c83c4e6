"""A piece of work on the GPU, or on the CPU where the arbiter says so.

Law: the caller gets what its own function returns or raises. The report about work on the CPU and the comparison
of both come after, and neither can change that.
"""

import abc
import dataclasses
import logging
from datetime import timedelta
from typing import Any, TypeVar, Unpack, overload

from gpuarbiter import _clock
from gpuarbiter._aio import backend
from gpuarbiter._aio.lease import AsyncLease
from gpuarbiter._aio.options import AsyncLeaseOptions
from gpuarbiter._consistency import ConsistencyCheck
from gpuarbiter._current import running_under
from gpuarbiter._outcomes import Declined, FallbackToCpu, Skipped
from gpuarbiter._reporting import report_of
from gpuarbiter._values import WorkContext, WorkReport

logger = logging.getLogger("gpuarbiter")

G = TypeVar("G")
C = TypeVar("C")
S = TypeVar("S")

# That a skip is raised.
RAISE: Any = object()
# What a report about work on the CPU may cost; it is only for statistics.
_REPORT_SECONDS = 1.0


class AsyncRunning(abc.ABC):
    """What an arbiter can run."""

    @abc.abstractmethod
    async def acquire(
        self, task_type: str, **options: Unpack[AsyncLeaseOptions]
    ) -> AsyncLease | Skipped | FallbackToCpu:
        """A lease, or a decline."""

    @abc.abstractmethod
    async def report_work(
        self, task_type: str, report: WorkReport, *, context: WorkContext | None = None, seconds: float = ...
    ) -> None:
        """Tells of work that had no lease."""

    @overload
    async def run(
        self, task_type: str, gpu: backend.GpuWork[AsyncLease, G], **options: Unpack[AsyncLeaseOptions]
    ) -> G: ...
    @overload
    async def run(
        self,
        task_type: str,
        gpu: backend.GpuWork[AsyncLease, G],
        *,
        on_skip: S,
        **options: Unpack[AsyncLeaseOptions],
    ) -> G | S: ...
    @overload
    async def run(
        self,
        task_type: str,
        gpu: backend.GpuWork[AsyncLease, G],
        *,
        cpu: backend.CpuWork[C],
        consistency: ConsistencyCheck | None = None,
        **options: Unpack[AsyncLeaseOptions],
    ) -> G | C: ...
    @overload
    async def run(
        self,
        task_type: str,
        gpu: backend.GpuWork[AsyncLease, G],
        *,
        cpu: backend.CpuWork[C],
        on_skip: S,
        consistency: ConsistencyCheck | None = None,
        **options: Unpack[AsyncLeaseOptions],
    ) -> G | C | S: ...
    async def run(
        self,
        task_type: str,
        gpu: backend.GpuWork[AsyncLease, Any],
        *,
        cpu: backend.CpuWork[Any] | None = None,
        on_skip: Any = RAISE,
        consistency: ConsistencyCheck | None = None,
        **options: Unpack[AsyncLeaseOptions],
    ) -> Any:
        """Runs `gpu(lease)` under a lease, and gives the lease back; what it returns is returned.

        Args:
            task_type: as for `lease`, as are all other keywords.
            gpu: the work; called with the lease, which is `current_lease()`, too.
            cpu: the same work without a GPU, called when the answer is FALLBACK_CPU; the arbiter is told of it.
            on_skip: returned when the answer is SKIP, which is raised otherwise.
            consistency: compares with the CPU now and then.

        Raises:
            Skipped: no GPU could be had, and there is no `on_skip`.
            FallbackToCpu: no GPU could be had, and there is no `cpu`.
            ArbiterError: as `lease`.
        """
        if consistency is not None and cpu is None:
            raise ValueError("consistency needs a cpu function to compare with")
        outcome = await self.acquire(task_type, **options)
        if isinstance(outcome, FallbackToCpu) and cpu is not None:
            return await self._on_cpu(task_type, cpu, options.get("context"))
        if isinstance(outcome, Skipped) and on_skip is not RAISE:
            return on_skip
        if isinstance(outcome, Declined):
            raise outcome
        async with outcome as lease:
            result = await _under(lease, gpu)
        if consistency is not None and cpu is not None and consistency.due():
            await _compare(consistency, task_type, result, cpu)
        return result

    async def _on_cpu(self, task_type: str, cpu: backend.CpuWork[C], context: WorkContext | None) -> C:
        began = _clock.now()
        failure: BaseException | None = None
        try:
            with running_under(None):
                return await cpu()
        except BaseException as error:
            failure = error
            raise
        finally:
            took = timedelta(seconds=_clock.now() - began)
            report = dataclasses.replace(report_of(failure, took), device="CPU")
            await backend.finish(self._tell, task_type, report, context)

    async def _tell(self, task_type: str, report: WorkReport, context: WorkContext | None) -> None:
        try:
            await self.report_work(task_type, report, context=context, seconds=_REPORT_SECONDS)
        except Exception as failure:  # noqa: BLE001 -- the work itself counts more
            logger.warning("the arbiter was not told of work on the CPU: %s", failure)


async def _under(lease: AsyncLease, gpu: backend.GpuWork[AsyncLease, G]) -> G:
    with running_under(lease):
        return await gpu(lease)


async def _compare(check: ConsistencyCheck, task_type: str, result: Any, cpu: backend.CpuWork[Any]) -> None:
    try:
        with running_under(None):
            on_cpu = await cpu()
    except Exception as error:  # noqa: BLE001 -- the caller gets the GPU's result
        check.failed(task_type, error)
        return
    mismatch = check.judge(task_type, result, on_cpu)
    if mismatch is None or check.on_mismatch is None:
        return
    try:
        await backend.call_back(check.on_mismatch, mismatch)
    except Exception:
        logger.exception("on_mismatch raised")
