"""The pipeline as programs use it.

Law: what is wrong with how it is made is an error here; everything else is the engine's.
"""

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from gpuarbiter._aio.running import AsyncRunning
from gpuarbiter._units import Duration, parse_duration
from gpuarbiter.pipeline._engine import Engine
from gpuarbiter.pipeline._places import Places
from gpuarbiter.pipeline._session import MAX_INDEX, PipelineSession
from gpuarbiter.pipeline._stage import Stage
from gpuarbiter.pipeline._values import (
    JobResult,
    PipelineClosed,
    PipelineStatistics,
    StageResult,
    check_functions,
    checked_number,
)

# Work that was told to end has so long, and its lease is given back within five seconds.
_ABORT_SECONDS = 10.0
_MAX_SESSION_ID = 200


class Pipeline:
    """Takes jobs through stages. Leaving its with-block closes it, after an error without draining.

    Args:
        arbiter: an AsyncArbiter, which stays yours to close.
        stages: at least one, in order, each name once.
        hold_back: how long at most a result waits for those of lower indices; None: as long as it takes.
        max_in_flight: how many jobs may be under way, until `on_result` is done with their results.
        max_in_flight_per_session: the same for each session, so that none takes all.
        on_failure: called with the StageResult of each stage whose work raised or whose lease could not be had.
        on_timeout: the same for those that took too long.
        on_skip: the same for those that the arbiter declined, or whose work raised SkipJob.

    Raises:
        ValueError, TypeError: naming what is wrong.
    """

    def __init__(
        self,
        arbiter: AsyncRunning,
        stages: Sequence[Stage],
        *,
        hold_back: Duration | None = 5.0,
        max_in_flight: int = 64,
        max_in_flight_per_session: int = 16,
        on_failure: Callable[[StageResult], Any] | None = None,
        on_timeout: Callable[[StageResult], Any] | None = None,
        on_skip: Callable[[StageResult], Any] | None = None,
    ) -> None:
        names = [stage.name for stage in stages]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"stages: {names!r} is not allowed; at least one, and each name once")
        check_functions({"on_failure": on_failure, "on_timeout": on_timeout, "on_skip": on_skip})
        self._engine = Engine(
            arbiter,
            stages,
            None if hold_back is None else parse_duration(hold_back).total_seconds(),
            {"FAILED": on_failure, "TIMED_OUT": on_timeout, "DECLINED": on_skip, "SKIPPED": on_skip},
        )
        self._places = Places(checked_number("max_in_flight:", max_in_flight, 1))
        self._per_session = checked_number("max_in_flight_per_session:", max_in_flight_per_session, 1)
        self._sessions: dict[str, PipelineSession] = {}
        self._closed = False

    def session(
        self, session_id: str, *, first_index: int = 0, on_result: Callable[[JobResult], Any] | None = None
    ) -> PipelineSession:
        """Opens a session. Its name is free again once it has ended.

        Args:
            session_id: 1 to 200 printable characters.
            first_index: the lowest utterance_index that is waited for.
            on_result: called with each result in its turn, one at a time; a coroutine function is awaited, and its jobs
                count as in flight until it is done with them.

        Raises:
            ValueError: there is such a session, or it is no name.
            PipelineClosed: the pipeline was closed.
        """
        if self._closed:
            raise PipelineClosed("the pipeline is closed")
        if not (isinstance(session_id, str) and session_id.isprintable() and 1 <= len(session_id) <= _MAX_SESSION_ID):
            raise ValueError(
                f"session_id {session_id!r} is not allowed; write 1 to {_MAX_SESSION_ID} printable characters"
            )
        check_functions({"on_result": on_result})
        checked_number("first_index", first_index, 0, MAX_INDEX)
        self._sessions = {name: session for name, session in self._sessions.items() if not session.over}
        if session_id in self._sessions:
            raise ValueError(f"session {session_id!r} is open already; end it first")
        places = Places(self._per_session), self._places
        session = self._sessions[session_id] = PipelineSession(self._engine, session_id, first_index, places, on_result)
        return session

    def statistics(self) -> PipelineStatistics:
        """How it stands, and what came of everything so far."""
        return self._engine.statistics()

    def cancel(self) -> int:
        """Gives up all jobs that are not over, and returns how many; the pipeline goes on."""
        return self._engine.cancel_all()

    async def close(self, *, drain: bool = True) -> None:
        """Takes no more jobs, and ends: with everything done, or, without `drain`, with everything cancelled.

        Every job has its result then. Work that does not end when it is told to is waited for for ten seconds.
        """
        self._closed = True
        self._places.refuse(PipelineClosed("the pipeline is closed"))
        sessions = tuple(self._sessions.values())
        if not drain:
            self.cancel()
        for session in sessions:
            session.finish()
        try:
            for session in sessions:
                await session.end()
        except asyncio.CancelledError:
            self.cancel()
            raise
        await self._engine.settle(_ABORT_SECONDS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(drain=error is None)
