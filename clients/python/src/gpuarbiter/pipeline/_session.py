"""A session as programs use it: jobs go in under back-pressure, results come out in order.

Law: a job's place in flight is free again once `on_result` is done with its result, so that a slow consumer slows
whoever submits, and nothing piles up.
"""

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from types import TracebackType
from typing import Any, Self

from gpuarbiter._aio import backend
from gpuarbiter.pipeline._engine import Engine
from gpuarbiter.pipeline._places import Places
from gpuarbiter.pipeline._records import JobRecord
from gpuarbiter.pipeline._values import JobResult, PipelineClosed, State, checked_number

logger = logging.getLogger("gpuarbiter")

MAX_INDEX = 2**53 - 1


class Job:
    """A job that was submitted; awaiting it returns its JobResult, when its turn has come."""

    def __init__(self, engine: Engine, record: JobRecord, result: "asyncio.Future[JobResult]") -> None:
        self._engine = engine
        self._record = record
        self._result = result

    @property
    def session_id(self) -> str:
        """Whose it is."""
        return self._record.session.session_id

    @property
    def utterance_index(self) -> int:
        """Its place in the session."""
        return self._record.index

    @property
    def state(self) -> State:
        """Pending between two stages as before the first."""
        return self._record.state

    @property
    def stages(self) -> dict[str, State]:
        """Every stage, in order, by its state for this job."""
        states: dict[str, State] = {stage.name: "pending" for stage in self._engine.stages}
        states |= {result.stage: result.state for result in self._record.results}
        if self._record.run is not None:
            states[self._record.run.stage.name] = "running"
        return states

    def cancel(self) -> bool:
        """Gives it up: its result is "failed" by the cause CANCELLED. False: it is over already."""
        return self._engine.cancel([self._record]) == 1

    def __await__(self) -> Generator[Any, None, JobResult]:
        return asyncio.shield(self._result).__await__()


class PipelineSession:
    """Jobs whose results come out in order; made by `Pipeline.session`. Leaving its with-block ends it."""

    def __init__(
        self,
        engine: Engine,
        session_id: str,
        first_index: int,
        places: tuple[Places, Places],
        on_result: Callable[[JobResult], Any] | None,
    ) -> None:
        self._engine = engine
        self._record = engine.open(session_id, first_index)
        self._own_places, self._places = places
        self._on_result = on_result
        # Where the session was opened; results come out wherever the last stage ends.
        self._context = contextvars.copy_context()
        self._results: deque[JobResult] = deque()
        self._handing_out = False
        self._ended = False
        self._over = backend.Event()

    @property
    def session_id(self) -> str:
        """Its name."""
        return self._record.session_id

    async def submit(self, value: Any, *, utterance_index: int | None = None) -> Job:
        """Hands a job in, as soon as fewer are in flight than may be.

        Args:
            value: what the first stage is given.
            utterance_index: 0 or more, once each; the one after the highest so far unless told.

        Raises:
            ValueError: the index is there already, or is none.
            PipelineClosed: the session was ended, or the pipeline closed.
        """
        if utterance_index is not None:
            checked_number("utterance_index", utterance_index, 0, MAX_INDEX)
        self._check_open()
        result: asyncio.Future[JobResult] = asyncio.get_running_loop().create_future()
        await self._own_places.take()
        try:
            await self._places.take()
            try:
                self._check_open()
                record = self._engine.submit(self._record, utterance_index, value, partial(self._out, result))
            except BaseException:
                self._places.give_back()
                raise
        except BaseException:
            self._own_places.give_back()
            raise
        return Job(self._engine, record, result)

    def cancel(self) -> int:
        """Gives up all its jobs that are not over, and returns how many; the session goes on."""
        return self._engine.cancel(tuple(self._record.jobs.values()))

    def finish(self) -> None:
        """No more jobs come; does not wait for those that are under way."""
        if self._ended:
            return
        self._ended = True
        self._own_places.refuse(self._closed())
        self._engine.end(self._record)
        self._look_whether_over()

    async def end(self) -> None:
        """No more jobs come: waits until all results are out, and `on_result` is done with them."""
        self.finish()
        await self._over.wait()

    def _closed(self) -> PipelineClosed:
        return PipelineClosed(f"session {self.session_id!r} has ended")

    def _check_open(self) -> None:
        if self._ended:
            raise self._closed()

    def _out(self, awaited: "asyncio.Future[JobResult]", result: JobResult) -> None:
        awaited.set_result(result)
        self._results.append(result)
        if not self._handing_out:
            self._handing_out = True
            self._context.copy().run(backend.spawn, self._hand_out)

    async def _hand_out(self) -> None:
        while self._results:
            result = self._results.popleft()
            try:
                if self._on_result is not None:
                    await backend.call_back(self._on_result, result)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                logger.warning("on_result of session %s was cancelled", self.session_id)
            except Exception:
                logger.exception("on_result of session %s raised", self.session_id)
            self._own_places.give_back()
            self._places.give_back()
        self._handing_out = False
        self._look_whether_over()

    def _look_whether_over(self) -> None:
        if self._ended and self._record.order.over and not self._handing_out:
            self._over.set()

    @property
    def over(self) -> bool:
        """It was ended, and everything is out."""
        return self._over.is_set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.cancel()
        await self.end()
