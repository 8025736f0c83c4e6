"""The scheduler's effects, done on asyncio.

Law: decides nothing. An event goes into the scheduler with its time, and what comes back is done in order, one effect
at a time, also where doing one brings the next event about. A job's work and callbacks run in the context (contextvars:
the span of a trace, for instance) in which it was submitted, whoever's end makes room for it.
"""

import asyncio
import contextvars
import logging
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from gpuarbiter._aio import backend
from gpuarbiter._aio.running import AsyncRunning
from gpuarbiter.pipeline._records import Abort, Deliver, Effect, End, JobRecord, Run, SessionRecord, Start, Tell
from gpuarbiter.pipeline._running import Running
from gpuarbiter.pipeline._scheduler import Scheduler
from gpuarbiter.pipeline._stage import Stage
from gpuarbiter.pipeline._values import Cause, Device, JobCancelled, JobResult, PipelineStatistics, StageResult

logger = logging.getLogger("gpuarbiter")

T = TypeVar("T")

Told = Callable[[StageResult], Any] | None


class Engine:
    """Runs what the scheduler says.

    Args:
        told: who is called with a stage's result, by its cause.
    """

    def __init__(
        self, arbiter: AsyncRunning, stages: Sequence[Stage], hold_back: float | None, told: Mapping[Cause, Told]
    ) -> None:
        self.stages = tuple(stages)
        self._arbiter = arbiter
        self._scheduler = Scheduler(stages, hold_back)
        self._told = told
        self._id = uuid.uuid4().hex[:8]
        self._submitted: dict[JobRecord, tuple[contextvars.Context, Callable[[JobResult], None]]] = {}
        self._tasks: dict[Run, asyncio.Task[End]] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._effects: deque[Effect] = deque()
        self._doing = False
        self._timer: asyncio.TimerHandle | None = None

    # -- events ----------------------------------------------------------------------------------

    def open(self, session_id: str, first_index: int) -> SessionRecord:
        """A new session."""
        return self._scheduler.open(session_id, first_index)

    def submit(
        self, session: SessionRecord, index: int | None, value: Any, out: Callable[[JobResult], None]
    ) -> JobRecord:
        """A new job; `out` gets its result, in its turn."""
        job, effects = self._scheduler.submit(session, index, value, _now())
        self._submitted[job] = contextvars.copy_context(), out
        self._do(effects)
        return job

    def end(self, session: SessionRecord) -> None:
        """No more jobs come."""
        self._do(self._scheduler.end(session, _now()))

    def cancel(self, jobs: Iterable[JobRecord]) -> int:
        """Gives up those that are not over; how many."""
        live = [job for job in jobs if job.over_at is None]
        self._do(self._scheduler.cancel(live, _now()))
        return len(live)

    def cancel_all(self) -> int:
        """Gives up every job that is not over; how many."""
        return self.cancel(tuple(self._submitted))

    def statistics(self) -> PipelineStatistics:
        """So far."""
        return self._scheduler.statistics()

    async def settle(self, seconds: float) -> None:
        """Waits for callbacks, and for work that was told to end, for at most so many seconds."""
        await backend.settle([*self._tasks.values(), *self._telling], seconds)
        for run in self._tasks:
            logger.warning("work of %s did not end when told to, and is left alone", run.stage.name)

    def _began(self, run: Run, device: Device) -> None:
        self._scheduler.began(run, device, _now())

    def _ended(self, run: Run, task: "asyncio.Task[End]") -> None:
        del self._tasks[run]
        if task.cancelled():
            end = End("CANCELLED", error=JobCancelled(f"the task of {run.stage.name} was cancelled"))
        elif (error := task.exception()) is not None:
            end = End("FAILED", error=error)
        else:
            end = task.result()
        self._do(self._scheduler.ended(run, end, _now()))

    def _wake(self) -> None:
        self._timer = None
        self._do(self._scheduler.wake(_now()))

    # -- effects ---------------------------------------------------------------------------------

    def _do(self, effects: Iterable[Effect]) -> None:
        self._effects.extend(effects)
        if self._doing:
            return
        self._doing = True
        try:
            while self._effects:
                self._do_one(self._effects.popleft())
        finally:
            self._doing = False
        self._set_timer()

    def _do_one(self, effect: Effect) -> None:
        match effect:
            case Start(run):
                running = Running(self._arbiter, run, self._id, partial(self._began, run))
                task = self._tasks[run] = self._spawn(run.job, running.end)
                task.add_done_callback(partial(self._ended, run))
            case Abort(run):
                self._tasks[run].cancel()
            case Deliver(job, result):
                _, out = self._submitted.pop(job)
                out(result)
            case Tell(job, stage_result):
                self._tell(job, stage_result)

    def _spawn(self, job: JobRecord, work: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> "asyncio.Task[T]":
        context, _ = self._submitted[job]
        # A copy: the task's own, and one that is entered twice would be an error.
        return context.copy().run(backend.spawn, work, *arguments)

    def _tell(self, job: JobRecord, result: StageResult) -> None:
        callback = self._told[result.cause]
        if callback is not None:
            task = self._spawn(job, _call, callback, result)
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._scheduler.next_deadline()
        if deadline is not None:
            self._timer = asyncio.get_running_loop().call_at(deadline, self._wake)


async def _call(callback: Callable[[StageResult], Any], result: StageResult) -> None:
    try:
        await backend.call_back(callback, result)
    except Exception:
        logger.exception("the callback about %s raised", result.stage)


def _now() -> float:
    return asyncio.get_running_loop().time()
