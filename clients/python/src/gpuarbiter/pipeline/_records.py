"""What the scheduler keeps of sessions, jobs and runs, and what it wants done.

Law: only the scheduler changes these; times are in seconds of its clock.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from gpuarbiter.pipeline._lane import Lane
from gpuarbiter.pipeline._order import SessionOrder
from gpuarbiter.pipeline._stage import Stage
from gpuarbiter.pipeline._values import Cause, Device, JobResult, StageResult, State


@dataclass(eq=False, slots=True)
class SessionRecord:
    """A session with its jobs under way, by index."""

    session_id: str
    order: "SessionOrder[JobRecord]"
    jobs: "dict[int, JobRecord]" = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class JobRecord:
    """A job under way."""

    session: SessionRecord
    index: int
    serial: int
    value: Any
    submitted_at: float
    # When it became ready for the stage that it is in.
    ready_at: float
    stage: int = 0
    run: "Run | None" = None
    results: list[StageResult] = field(default_factory=list)
    state: State = "pending"
    cause: Cause = ""
    error: BaseException | None = None
    over_at: float | None = None

    def result(self, now: float, *, late: bool) -> JobResult:
        """What is delivered of it, once it is over."""
        assert self.over_at is not None
        return JobResult(
            self.session.session_id,
            self.index,
            self.state,
            self.value if self.state == "done" else None,
            self.cause,
            self.error,
            tuple(self.results),
            late,
            took=timedelta(seconds=self.over_at - self.submitted_at),
            held_back=timedelta(seconds=now - self.over_at),
        )


@dataclass(eq=False, slots=True)
class Run:
    """A job in a stage: it has a place there."""

    job: JobRecord
    lane: Lane
    started_at: float
    began_at: float | None = None
    device: Device = ""
    abandoned: bool = False

    @property
    def stage(self) -> Stage:
        """Which stage."""
        return self.lane.stage

    @property
    def deadline(self) -> float | None:
        """When it is to be given up."""
        seconds = self.stage.timeout_seconds
        return None if seconds is None or self.abandoned else self.started_at + seconds


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended: with a value where `cause` is empty."""

    cause: Cause = ""
    value: Any = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """A run is to start."""

    run: Run


@dataclass(frozen=True, slots=True)
class Abort:
    """A run is to end as soon as it can: nobody waits for what comes of it."""

    run: Run


@dataclass(frozen=True, slots=True)
class Tell:
    """A stage is not done, and why."""

    job: JobRecord
    result: StageResult


@dataclass(frozen=True, slots=True)
class Deliver:
    """The one result of a job."""

    job: JobRecord
    result: JobResult


Effect = Start | Abort | Tell | Deliver
