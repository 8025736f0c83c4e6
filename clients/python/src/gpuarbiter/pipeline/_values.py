# ruff: noqa: N818 -- these name what happened, as the errors of the package do
"""What comes of jobs and stages, as frozen data.

Law: `state` says what became of it, `cause` why. Every job that was submitted has exactly one JobResult.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

State = Literal["pending", "running", "done", "failed", "skipped"]
Cause = Literal["", "FAILED", "TIMED_OUT", "DECLINED", "SKIPPED", "CANCELLED"]
Device = Literal["", "GPU", "CPU"]


class SkipJob(Exception):
    """Raised by the work of a stage: nothing is to be done for this job any more, and that is no failure."""


class StageTimeout(TimeoutError):
    """A stage took longer than its time-out."""


class JobCancelled(Exception):
    """The job was cancelled: by itself, with its session, or with the pipeline."""


class PipelineClosed(RuntimeError):
    """The pipeline, or the session, takes no more jobs."""


@dataclass(frozen=True, slots=True)
class StageResult:
    """What came of one stage of a job.

    Attributes:
        stage: its name.
        state: "done"; "skipped": the job went on with what the stage was given, or was skipped as a whole;
            "failed": so did the job.
        cause: why it is not done: "FAILED" (its work raised, or the lease could not be had), "TIMED_OUT", "DECLINED"
            (by the arbiter), "SKIPPED" (its work raised SkipJob), "CANCELLED".
        error: what was raised, if anything.
        device: where the work ran: "GPU", "CPU", or "" where it did not begin, or needs none of the two.
        waited: from when the job was ready for the stage until the work began: for the stage's place and for a lease.
        ran: how long the work took.
    """

    session_id: str
    utterance_index: int
    stage: str
    state: State
    cause: Cause = ""
    error: BaseException | None = None
    device: Device = ""
    waited: timedelta = timedelta(0)
    ran: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class JobResult:
    """The one result of a job.

    Attributes:
        state: "done", "failed" or "skipped".
        value: what the last stage made of it; None unless it is done.
        cause: why it is not done, as of the stage that decided it.
        error: what was raised there.
        stages: of the stages that it began, in order.
        late: results of higher indices were delivered before, because this one had held them back for long enough.
        took: from its submission until it was over.
        held_back: from then until its turn.
    """

    session_id: str
    utterance_index: int
    state: State
    value: Any
    cause: Cause
    error: BaseException | None
    stages: tuple[StageResult, ...]
    late: bool
    took: timedelta
    held_back: timedelta


@dataclass(frozen=True, slots=True)
class StageStatistics:
    """A stage so far.

    Attributes:
        pending: jobs that wait for one of its places.
        running: its places that are taken: waiting for a lease, at work, or not yet out of it after a time-out.
        done, failed, skipped: how often it ended so.
        timed_out: how many of those that failed or were skipped took too long.
        waited, longest_wait: until the work began, over all, and at most.
        ran, longest_run: the work itself.
    """

    pending: int
    running: int
    done: int
    failed: int
    skipped: int
    timed_out: int
    waited: timedelta
    longest_wait: timedelta
    ran: timedelta
    longest_run: timedelta


@dataclass(frozen=True, slots=True)
class PipelineStatistics:
    """A pipeline so far.

    Attributes:
        in_flight: jobs that were submitted and have no result yet, or one that waits for its turn.
        held_back: those of them whose result waits for its turn.
        done, failed, skipped: jobs delivered, by state.
        late: how many of those came out of their place.
        stages: by name, in order.
    """

    in_flight: int
    held_back: int
    done: int
    failed: int
    skipped: int
    late: int
    stages: Mapping[str, StageStatistics]


def check_functions(functions: Mapping[str, object]) -> None:
    """Whatever is there can be called.

    Raises:
        TypeError: it cannot.
    """
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise TypeError(f"{name}: {function!r} cannot be called")


def checked_number(name: str, value: int, least: int, most: int | None = None) -> int:
    """A whole number within its limits.

    Raises:
        ValueError: it is none.
    """
    limit = f"{least} or more" if most is None else f"{least} to {most}"
    if not isinstance(value, int) or isinstance(value, bool) or value < least or (most is not None and value > most):
        raise ValueError(f"{name} {value!r} is not allowed; write a whole number, {limit}")
    return value
