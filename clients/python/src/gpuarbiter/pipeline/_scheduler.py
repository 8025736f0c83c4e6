"""What is to be done next: the whole of a pipeline's decisions.

Law: pure. Events come in with their time, in seconds of any clock that only rises; what is to be done comes back as
effects. Each job that is submitted is delivered once; a run that its job no longer waits for (it took too long, or the
job was cancelled) keeps its place until it has ended, and nothing that comes of it counts.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from gpuarbiter.pipeline._lane import Lane
from gpuarbiter.pipeline._order import SessionOrder, Turn
from gpuarbiter.pipeline._records import Abort, Deliver, Effect, End, JobRecord, Run, SessionRecord, Start, Tell
from gpuarbiter.pipeline._stage import Stage
from gpuarbiter.pipeline._values import (
    Cause,
    Device,
    JobCancelled,
    PipelineStatistics,
    StageResult,
    StageTimeout,
    State,
)


class Scheduler:
    """The decisions of one pipeline.

    Args:
        stages: at least one; their names differ.
        hold_back: seconds, or None; see SessionOrder.
    """

    def __init__(self, stages: Sequence[Stage], hold_back: float | None) -> None:
        self._lanes = [Lane(stage) for stage in stages]
        self._hold_back = hold_back
        self._serials = itertools.count()
        # Those with jobs under way.
        self._sessions: dict[SessionRecord, None] = {}
        self._runs: dict[Run, None] = {}
        self._delivered: Counter[State] = Counter()
        self._late = 0

    # -- sessions and their jobs -----------------------------------------------------------------

    def open(self, session_id: str, first_index: int) -> SessionRecord:
        """A new session; of those that are not over, each has a name of its own."""
        return SessionRecord(session_id, SessionOrder(first_index, self._hold_back))

    def submit(
        self, session: SessionRecord, index: int | None, value: Any, now: float
    ) -> tuple[JobRecord, list[Effect]]:
        """A new job; without an index, the one after the highest so far.

        Raises:
            ValueError: the index is there already.
        """
        index = session.order.following if index is None else index
        session.order.expect(index)
        job = JobRecord(session, index, next(self._serials), value, submitted_at=now, ready_at=now)
        session.jobs[index] = job
        self._sessions[session] = None
        self._lanes[0].join(job)
        return job, self._places(now)

    def end(self, session: SessionRecord, now: float) -> list[Effect]:
        """No more jobs come."""
        return self._deliver(session, session.order.end(), now)

    def cancel(self, jobs: Iterable[JobRecord], now: float) -> list[Effect]:
        """These are to be done with, those excepted that are over already."""
        effects: list[Effect] = []
        for job in [job for job in jobs if job.over_at is None]:
            error = JobCancelled(f"utterance {job.index} of session {job.session.session_id} was cancelled")
            if job.run is None:
                self._lanes[job.stage].leave(job)
                effects += self._over(job, "failed", "CANCELLED", error, now)
            else:
                effects += self._give_up(job.run, "CANCELLED", error, now)
        return effects + self._places(now)

    # -- runs and time ---------------------------------------------------------------------------

    @staticmethod
    def began(run: Run, device: Device, now: float) -> None:
        """Its work begins."""
        run.began_at = now
        run.device = device

    def ended(self, run: Run, end: End, now: float) -> list[Effect]:
        """It is out of its stage."""
        self._runs.pop(run, None)
        run.lane.free(run.job)
        effects = [] if run.abandoned else self._judge(run, end, now)
        return effects + self._places(now)

    def wake(self, now: float) -> list[Effect]:
        """Time has passed."""
        effects: list[Effect] = []
        for run in [run for run in self._runs if run.deadline is not None and run.deadline <= now]:
            seconds = run.stage.timeout_seconds
            error = StageTimeout(f"{run.stage.name} took longer than {seconds:g} s")
            effects += self._give_up(run, "TIMED_OUT", error, now)
        for session in tuple(self._sessions):
            effects += self._deliver(session, session.order.due(now), now)
        return effects + self._places(now)

    def next_deadline(self) -> float | None:
        """When to call `wake` at the latest."""
        times = [session.order.deadline() for session in self._sessions]
        times += [run.deadline for run in self._runs]
        return min((time for time in times if time is not None), default=None)

    # -- what comes of it ------------------------------------------------------------------------

    def _places(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for lane in self._lanes:
            while (job := lane.next()) is not None:
                job.run = Run(job, lane, started_at=now)
                job.state = "running"
                self._runs[job.run] = None
                effects.append(Start(job.run))
        return effects

    def _give_up(self, run: Run, cause: Cause, error: BaseException, now: float) -> list[Effect]:
        run.abandoned = True
        return [Abort(run), *self._judge(run, End(cause, error=error), now)]

    def _judge(self, run: Run, end: End, now: float) -> list[Effect]:
        """What a run came to, and what that means for its job."""
        job = run.job
        job.run = None
        skipped = end.cause == "SKIPPED" or run.stage.policy(end.cause) == "skip"
        state: State = "skipped" if skipped else "failed" if end.cause else "done"
        began = now if run.began_at is None else run.began_at
        result = StageResult(
            job.session.session_id,
            job.index,
            run.stage.name,
            state,
            end.cause,
            end.error,
            run.device,
            waited=timedelta(seconds=began - job.ready_at),
            ran=timedelta(seconds=now - began),
        )
        job.results.append(result)
        run.lane.count(result)
        told: list[Effect] = [Tell(job, result)] if end.cause not in {"", "CANCELLED"} else []
        if state == "failed" or end.cause == "SKIPPED":
            return told + self._over(job, state, end.cause, end.error, now)
        if state == "done":
            job.value = end.value
        return told + self._onwards(job, now)

    def _onwards(self, job: JobRecord, now: float) -> list[Effect]:
        job.stage += 1
        if job.stage == len(self._lanes):
            return self._over(job, "done", "", None, now)
        job.ready_at = now
        job.state = "pending"
        self._lanes[job.stage].join(job)
        return []

    def _over(
        self, job: JobRecord, state: State, cause: Cause, error: BaseException | None, now: float
    ) -> list[Effect]:
        job.state, job.cause, job.error, job.over_at = state, cause, error, now
        return self._deliver(job.session, job.session.order.arrived(job.index, job, now), now)

    def _deliver(self, session: SessionRecord, turns: Iterable[Turn[JobRecord]], now: float) -> list[Effect]:
        effects: list[Effect] = []
        for turn in turns:
            job = turn.item
            del session.jobs[job.index]
            self._delivered[job.state] += 1
            self._late += turn.late
            effects.append(Deliver(job, job.result(now, late=turn.late)))
        if not session.jobs:
            self._sessions.pop(session, None)
        return effects

    def statistics(self) -> PipelineStatistics:
        """So far."""
        return PipelineStatistics(
            in_flight=sum(len(session.jobs) for session in self._sessions),
            held_back=sum(session.order.held_back for session in self._sessions),
            done=self._delivered["done"],
            failed=self._delivered["failed"],
            skipped=self._delivered["skipped"],
            late=self._late,
            stages={lane.stage.name: lane.statistics() for lane in self._lanes},
        )
