"""The decisions of a pipeline, in virtual time: whatever happens when, each job comes out once, and in order."""

import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuarbiter.pipeline import JobResult, Stage, StageResult
from gpuarbiter.pipeline._records import Abort, Deliver, Effect, End, JobRecord, Run, SessionRecord, Start, Tell
from gpuarbiter.pipeline._scheduler import Scheduler


async def work(value: Any, _run: object) -> Any:
    return value


@dataclass
class World:
    """Does what the scheduler wants, with runs that take as long and end as the test says."""

    scheduler: Scheduler
    now: float = 0.0
    started: list[tuple[float, str, str, int]] = field(default_factory=list)
    aborted: list[Run] = field(default_factory=list)
    told: list[StageResult] = field(default_factory=list)
    delivered: list[tuple[float, JobResult]] = field(default_factory=list)
    running: list[Run] = field(default_factory=list)

    def do(self, effects: list[Effect]) -> list[Run]:
        """Takes note; returns what has started."""
        started = []
        for effect in effects:
            match effect:
                case Start(run):
                    self.started.append((self.now, run.stage.name, run.job.session.session_id, run.job.index))
                    self.running.append(run)
                    started.append(run)
                case Abort(run):
                    self.aborted.append(run)
                case Tell(_, result):
                    self.told.append(result)
                case Deliver(_, result):
                    self.delivered.append((self.now, result))
        return started

    def submit(self, session: SessionRecord, value: Any = None, index: int | None = None) -> JobRecord:
        job, effects = self.scheduler.submit(session, index, value, self.now)
        self.do(effects)
        return job

    def end(self, run: Run, end: End | None = None) -> list[Run]:
        """It ends, by itself."""
        self.running.remove(run)
        return self.do(self.scheduler.ended(run, end or End(value=run.job.value), self.now))

    def run_of(self, job: JobRecord) -> Run:
        assert job.run is not None
        return job.run

    @property
    def out(self) -> list[tuple[int, str, str]]:
        return [(result.utterance_index, result.state, result.cause) for _, result in self.delivered]


def world(*stages: Stage, hold_back: float | None = 5.0) -> World:
    return World(Scheduler(stages, hold_back))


@pytest.mark.parametrize(
    ("stage", "started"),
    [
        (Stage("ASR", work, concurrency=2), ["a0", "b0", "a1"]),
        (Stage("ASR", work, concurrency=2, sequenced=False), ["a0", "a1", "a2"]),
        (Stage("ASR", work, concurrency=2, gpu=False), ["a0", "a1", "a2"]),
    ],
    ids=["sequenced", "side by side", "without a GPU"],
)
def test_places_are_taken_by_the_oldest_and_in_sequence_by_one_of_each_session(stage: Stage, started: list[str]):
    there = world(stage)
    first, second = (there.scheduler.open(name, 0) for name in ("a", "b"))
    jobs = [there.submit(session) for session in (first, first, first, second)]
    there.end(there.run_of(jobs[0]))
    assert [f"{session}{index}" for _, _, session, index in there.started] == started


def test_within_a_session_the_lower_goes_first_whenever_it_came():
    there = world(Stage("ASR", work, concurrency=1))
    session = there.scheduler.open("a", 0)
    jobs = [there.submit(session, index=index) for index in (4, 3, 1)]
    there.end(there.run_of(jobs[0]))
    there.end(there.run_of(jobs[2]))
    assert [each[3] for each in there.started] == [4, 1, 3]


def test_a_run_that_took_too_long_keeps_its_place_until_it_has_ended():
    there = world(
        Stage("ASR", work, concurrency=1, timeout=2, on_timeout="skip"), Stage("NMT", work, timeout=9), hold_back=None
    )
    session = there.scheduler.open("a", 0)
    job, following = there.submit(session, "audio"), there.submit(session)
    hanging = there.run_of(job)
    assert there.scheduler.next_deadline() == 2
    there.now = 2.0
    there.do(there.scheduler.wake(there.now))
    assert there.aborted == [hanging]
    assert [each[1:] for each in there.started] == [("ASR", "a", 0), ("NMT", "a", 0)]
    assert there.scheduler.statistics().stages["ASR"].running == 1
    assert following.run is None
    there.end(there.run_of(job), End(value="text"))
    there.now = 3.0
    there.end(hanging, End(value="too late to count"))
    assert following.run is not None
    ((_, result),) = there.delivered
    assert (result.value, result.state, result.cause) == ("text", "done", "")
    assert [(each.stage, each.state, each.cause) for each in result.stages] == [
        ("ASR", "skipped", "TIMED_OUT"),
        ("NMT", "done", ""),
    ]
    assert str(result.stages[0].error) == "ASR took longer than 2 s"
    assert there.told == [result.stages[0]]
    assert there.scheduler.statistics().stages["ASR"].timed_out == 1


def test_times_are_told():
    there = world(Stage("ASR", work, concurrency=1), hold_back=4)
    session = there.scheduler.open("a", 0)
    jobs = [there.submit(session), there.submit(session)]
    for job, began, ended in ((jobs[0], 1.0, 3.0), (jobs[1], 3.5, 6.0)):
        there.scheduler.began(there.run_of(job), "GPU", began)
        there.now = ended
        there.end(there.run_of(job))
    waited, ran = zip(*((r.stages[0].waited, r.stages[0].ran) for _, r in there.delivered), strict=True)
    assert [each.total_seconds() for each in waited] == [1.0, 3.5]
    assert [each.total_seconds() for each in ran] == [2.0, 2.5]
    stage = there.scheduler.statistics().stages["ASR"]
    assert (stage.done, stage.waited.total_seconds(), stage.longest_wait.total_seconds()) == (2, 4.5, 3.5)
    assert (stage.ran.total_seconds(), stage.longest_run.total_seconds()) == (4.5, 2.5)
    assert there.delivered[1][1].took.total_seconds() == 6.0


def test_what_waits_and_what_runs_is_cancelled():
    there = world(Stage("ASR", work, concurrency=1), Stage("NMT", work))
    session = there.scheduler.open("a", 0)
    jobs = [there.submit(session) for _ in range(3)]
    running = there.run_of(jobs[0])
    there.do(there.scheduler.cancel(jobs[:2], there.now))
    assert there.aborted == [running]
    assert there.out == [(0, "failed", "CANCELLED"), (1, "failed", "CANCELLED")]
    assert there.told == []
    assert jobs[2].run is None
    there.end(running, End("CANCELLED"))
    assert jobs[2].run is not None
    assert there.do(there.scheduler.cancel(jobs[:2], there.now)) == []


def test_a_job_whose_work_says_so_is_skipped_as_a_whole():
    there = world(Stage("ASR", work, on_failure="skip"), Stage("NMT", work))
    job = there.submit(there.scheduler.open("a", 0))
    there.end(there.run_of(job), End("SKIPPED"))
    assert there.out == [(0, "skipped", "SKIPPED")]
    assert [result.state for result in there.told] == ["skipped"]


def test_a_session_is_forgotten_once_it_has_ended_and_its_name_is_free():
    there = world(Stage("ASR", work))
    session = there.scheduler.open("a", 0)
    job = there.submit(session)
    there.do(there.scheduler.end(session, 0))
    there.end(there.run_of(job))
    again = there.scheduler.open("a", 0)
    there.do(there.scheduler.end(session, 0))
    assert there.scheduler.statistics().done == 1
    there.submit(again)
    assert there.scheduler.statistics().in_flight == 1


# -- whatever happens ------------------------------------------------------------------------------

STAGES = (
    Stage("ASR", work, concurrency=2, timeout=3),
    Stage("SEMANTIC_REPAIR", work, concurrency=1, timeout=1.5, on_failure="skip"),
    Stage("NMT", work, concurrency=3, timeout=2, on_timeout="skip", on_decline="fail", sequenced=False),
    Stage("TTS", work, concurrency=2, gpu=False),
)
SECONDS = st.sampled_from([0.0, 0.5, 1.0, 2.0, 4.0])
CAUSES = st.sampled_from(["", "", "", "", "FAILED", "DECLINED", "SKIPPED"])


@dataclass(frozen=True)
class Plan:
    """A job that comes at a time, with how each stage will go, and perhaps a cancellation."""

    session: str
    index: int
    at: float
    stages: list[tuple[float, Any]]
    cancelled_after: float | None


PLANS = st.builds(
    Plan,
    st.sampled_from("abc"),
    st.integers(0, 6),
    SECONDS,
    st.lists(st.tuples(SECONDS, CAUSES), min_size=4, max_size=4),
    st.one_of(st.none(), st.none(), SECONDS),
)


class Future(World):
    """A world that lives through plans by itself. Stubborn runs do not end when they are told to."""

    def __init__(self, scheduler: Scheduler, plans: list[Plan], *, stubborn: bool) -> None:
        super().__init__(scheduler)
        self.sessions = {name: scheduler.open(name, 0) for name in "abc"}
        self.most: Counter[str] = Counter()
        self.together: Counter[tuple[str, str]] = Counter()
        self._stubborn = stubborn
        self._plans: dict[JobRecord, Plan] = {}
        self._numbers = itertools.count()
        self._agenda: list[tuple[float, int, Callable[..., object], Any]] = []
        for plan in plans:
            self._at(plan.at, self._come, plan)

    def live(self) -> None:
        """To the end."""
        while self._agenda or self.scheduler.next_deadline() is not None:
            deadline = self.scheduler.next_deadline()
            if deadline is not None and (not self._agenda or deadline <= self._agenda[0][0]):
                self.now = max(self.now, deadline)
                self.do(self.scheduler.wake(self.now))
            else:
                at, _, step, argument = heapq.heappop(self._agenda)
                self.now = max(self.now, at)
                step(argument)
        for session in self.sessions.values():
            self.do(self.scheduler.end(session, self.now))

    def do(self, effects: list[Effect]) -> list[Run]:
        for effect in effects:
            if isinstance(effect, Abort) and not self._stubborn:
                self._at(self.now, self._stop, effect.run)
        for run in super().do(effects):
            self._at(self.now + self._course(run)[0], self._stop, run)
        self.most |= Counter(run.stage.name for run in self.running)
        self.together |= Counter((run.stage.name, run.job.session.session_id) for run in self.running)
        return []

    def _at(self, time: float, step: Callable[..., object], argument: Any) -> None:
        heapq.heappush(self._agenda, (time, next(self._numbers), step, argument))

    def _course(self, run: Run) -> tuple[float, Any]:
        return self._plans[run.job].stages[STAGES.index(run.stage)]

    def _come(self, plan: Plan) -> None:
        job, effects = self.scheduler.submit(self.sessions[plan.session], plan.index, None, self.now)
        self._plans[job] = plan
        if plan.cancelled_after is not None:
            self._at(self.now + plan.cancelled_after, self._cancel, job)
        self.do(effects)

    def _cancel(self, job: JobRecord) -> None:
        self.do(self.scheduler.cancel([job], self.now))

    def _stop(self, run: Run) -> None:
        if run in self.running:
            self.end(run, End(self._course(run)[1]))


@given(
    plans=st.lists(PLANS, min_size=1, max_size=10, unique_by=lambda plan: (plan.session, plan.index)),
    hold_back=st.sampled_from([None, 0.0, 1.0, 3.0]),
    stubborn=st.booleans(),
)
def test_any_interleaving_delivers_each_job_once_and_in_order(
    plans: list[Plan], hold_back: float | None, stubborn: bool
):
    there = Future(Scheduler(STAGES, hold_back), plans, stubborn=stubborn)
    there.live()
    results = [result for _, result in there.delivered]
    assert Counter((result.session_id, result.utterance_index) for result in results) == Counter(
        (plan.session, plan.index) for plan in plans
    )
    for name in there.sessions:
        in_place = [result.utterance_index for result in results if result.session_id == name and not result.late]
        assert in_place == sorted(in_place)
    if hold_back is not None:
        assert all(result.held_back.total_seconds() <= hold_back for result in results)
    assert not there.running
    assert all(there.most[stage.name] <= stage.concurrency for stage in STAGES)
    assert all(there.together[stage.name, name] <= 1 for stage in STAGES[:2] for name in there.sessions)
    final = there.scheduler.statistics()
    assert (final.in_flight, final.held_back, final.done + final.failed + final.skipped) == (0, 0, len(plans))
    assert final.late == sum(result.late for result in results)
    reached = Counter(stage.stage for result in results for stage in result.stages)
    for name, stage in final.stages.items():
        assert (stage.pending, stage.running) == (0, 0)
        assert stage.done + stage.failed + stage.skipped == reached[name]
