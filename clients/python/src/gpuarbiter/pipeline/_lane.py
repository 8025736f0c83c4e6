"""One stage as the scheduler sees it: who waits for a place, who has one, and what came of those before.

Law: pure. A place is free again when the run that had it has ended, however long its job has been over by then.
"""

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from gpuarbiter.pipeline._stage import Stage
from gpuarbiter.pipeline._values import StageResult, StageStatistics

if TYPE_CHECKING:
    from gpuarbiter.pipeline._records import JobRecord


class Lane:
    """The waiting and the running of one stage."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._waiting: list[JobRecord] = []
        # Places taken, by session.
        self._taken: Counter[str] = Counter()
        self._states: Counter[str] = Counter()
        self._timed_out = 0
        self._waited = [timedelta(0), timedelta(0)]
        self._ran = [timedelta(0), timedelta(0)]

    def join(self, job: "JobRecord") -> None:
        """It is ready for this stage."""
        self._waiting.append(job)

    def leave(self, job: "JobRecord") -> None:
        """It does not wait here any more."""
        self._waiting.remove(job)

    def next(self) -> "JobRecord | None":
        """Whose turn it is, if there is a place; it has the place then."""
        if self._taken.total() >= self.stage.concurrency:
            return None
        first: dict[str, JobRecord] = {}
        for job in self._waiting:
            known = first.setdefault(job.session.session_id, job)
            if job.index < known.index:
                first[job.session.session_id] = job
        if self.stage.gpu and self.stage.sequenced:
            # Whoever follows in a session that is at work here would hold a place only to wait for that one's lease.
            first = {session_id: job for session_id, job in first.items() if not self._taken[session_id]}
        chosen = min(first.values(), key=lambda job: job.serial, default=None)
        if chosen is not None:
            self._waiting.remove(chosen)
            self._taken[chosen.session.session_id] += 1
        return chosen

    def free(self, job: "JobRecord") -> None:
        """Its run has ended."""
        self._taken[job.session.session_id] -= 1
        self._taken += Counter()

    def count(self, result: StageResult) -> None:
        """This came of a run."""
        self._states[result.state] += 1
        self._timed_out += result.cause == "TIMED_OUT"
        for times, time in ((self._waited, result.waited), (self._ran, result.ran)):
            times[:] = times[0] + time, max(times[1], time)

    def statistics(self) -> StageStatistics:
        """So far."""
        return StageStatistics(
            pending=len(self._waiting),
            running=self._taken.total(),
            done=self._states["done"],
            failed=self._states["failed"],
            skipped=self._states["skipped"],
            timed_out=self._timed_out,
            waited=self._waited[0],
            longest_wait=self._waited[1],
            ran=self._ran[0],
            longest_run=self._ran[1],
        )
