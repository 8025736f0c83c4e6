"""When it runs, what it keeps, and what becomes of runs that fail."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fakes.virtual_loop import run_virtually
from gpuarbiter_server.analysis.model import GpuWindow, Holder, Judgement, Result, Sample, Thresholds, Verdict
from gpuarbiter_server.analysis.service import Advise, Analysis, AnalysisError, Run, Settings, unadvised
from gpuarbiter_server.analysis.sources import SourceError
from gpuarbiter_server.analysis.statistics import NamespaceStatistics, low, statistics
from server.analysis.windows import of, window


class Script:
    """A source that answers what it is told to, one after the other; the last for ever."""

    name = "script"

    def __init__(self, *answers: list[GpuWindow] | Exception, delay: float = 0.0) -> None:
        self.answers = list(answers)
        self.delay = delay
        self.asked = 0
        self.closed = False

    async def windows(self) -> list[GpuWindow]:
        self.asked += 1
        await asyncio.sleep(self.delay)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual time knows nothing of threads."""

    async def inline(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", inline)


def analysis(
    source: Script,
    observed: list[tuple[bool, float]] | None = None,
    advise: Advise = unadvised,
    on_run: Callable[[Run], None] = lambda _run: None,
    **settings: Any,
) -> Analysis:
    clock = asyncio.get_running_loop().time
    observe = (lambda _ok, _s: None) if observed is None else (lambda ok, s: observed.append((ok, s)))
    return Analysis(
        source,
        Settings(**settings),
        history=3,
        first=30.0,
        clock=clock,
        wall=clock,
        observe=observe,
        advise=advise,
        on_run=on_run,
    )


def test_it_runs_first_soon_and_then_at_intervals_with_a_bounded_history():
    async def life() -> None:
        made = analysis(Script([window([0.9])]), interval=100.0)
        task = asyncio.ensure_future(made.run_forever())
        await asyncio.sleep(29)
        assert made.latest is None
        await asyncio.sleep(502)
        assert [run.at for run in made.runs] == [530, 430, 330]
        task.cancel()
        await made.close()

    run_virtually(life())


def test_a_new_interval_counts_at_once_from_the_last_run():
    async def life() -> None:
        made = analysis(Script([window([0.9])]), interval=1000.0)
        task = asyncio.ensure_future(made.run_forever())
        await asyncio.sleep(60)
        made.configure(Settings(interval=100.0))
        await asyncio.sleep(171)
        assert [run.at for run in made.runs] == [230, 130, 30]
        made.configure(Settings(interval=10.0))
        await asyncio.sleep(10)
        made.configure(Settings(interval=1e6))
        await asyncio.sleep(100)
        assert made.runs[0].at == 240.0
        task.cancel()

    run_virtually(life())


def test_who_asks_during_a_run_gets_that_and_nobody_stops_it_for_others():
    async def life() -> None:
        source = Script([window([0.9])], delay=5.0)
        made = analysis(source)
        hasty = asyncio.ensure_future(made.run())
        patient = asyncio.ensure_future(made.run())
        await asyncio.sleep(1)
        hasty.cancel()
        assert await patient is made.latest
        assert source.asked == 1
        await made.run()
        assert source.asked == 2

    run_virtually(life())


def test_a_run_that_fails_leaves_the_last_result_marked_stale():
    async def life() -> None:
        observed: list[tuple[bool, float]] = []
        source = Script([window([0.9])], SourceError("gone"), ValueError("odd"), [window([0.1])])
        made = analysis(source, observed)
        with_result = await made.run()
        assert not made.stale
        with pytest.raises(AnalysisError, match="the analysis by script failed: gone; the last"):
            await made.run()
        assert (made.latest, made.stale, made.fault) == (with_result, True, "gone")
        with pytest.raises(AnalysisError, match="odd"):
            await made.run()
        await made.run()
        assert (made.stale, made.fault) == (False, "")
        assert [ok for ok, _ in observed] == [True, False, False, True]

    run_virtually(life())


def test_a_source_that_hangs_is_given_up():
    async def life() -> None:
        made = analysis(Script([], delay=1e6), timeout=60.0)
        with pytest.raises(AnalysisError, match=r"it took longer than 60 s$"):
            await made.run()
        assert asyncio.get_running_loop().time() == 60
        assert not made.stale, "there is nothing that could be"

    run_virtually(life())


def test_a_failure_does_not_end_the_schedule():
    async def life() -> None:
        made = analysis(Script(SourceError("gone"), [window([0.9])]), interval=100.0)
        task = asyncio.ensure_future(made.run_forever())
        await asyncio.sleep(131)
        assert made.latest is not None
        await asyncio.sleep(0)
        task.cancel()

    run_virtually(life())


def test_a_result_that_no_new_one_follows_is_stale_in_time():
    async def life() -> None:
        made = analysis(Script([window([0.9])]), interval=100.0)
        await made.run()
        await asyncio.sleep(200)
        assert not made.stale
        await asyncio.sleep(1)
        assert made.stale

    run_virtually(life())


def test_closing_ends_what_is_under_way():
    async def life() -> None:
        source = Script([], delay=1e6)
        made = analysis(source)
        waiting = asyncio.ensure_future(made.run())
        await asyncio.sleep(1)
        await made.close()
        assert source.closed
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run_virtually(life())


class Adviser:
    """Gives every GPU the score that it is told to; takes its time, and fails, where it is told so."""

    def __init__(self, score: float, *, delay: float = 0.0, fault: Exception | None = None) -> None:
        self.score, self.delay, self.fault = score, delay, fault
        self.told: list[tuple[bool, float]] = []

    async def __call__(self, results: tuple[Result, ...], *, fresh: bool, seconds: float) -> tuple[Result, ...]:
        self.told.append((fresh, seconds))
        await asyncio.sleep(self.delay)
        if self.fault is not None:
            raise self.fault
        return tuple(replace(each, score=self.score) for each in results)


def test_advice_is_told_what_time_is_left_and_whether_it_is_to_be_fresh():
    async def life() -> None:
        adviser = Adviser(42.0)
        made = analysis(Script([window([0.9])], delay=5.0), advise=adviser, timeout=60.0)
        assert [each.score for each in (await made.run()).results] == [42.0]
        assert [each.score for each in (await made.run(advised=True)).results] == [42.0]
        assert [each.score for each in (await made.run(advised=False)).results] != [42.0]
        assert adviser.told == [(False, 55.0), (True, 55.0)]

    run_virtually(life())


def test_the_table_in_the_log_says_which_judgement_is_a_models(caplog: pytest.LogCaptureFixture):
    async def judge(results: tuple[Result, ...], *, fresh: bool, seconds: float) -> tuple[Result, ...]:
        assert (fresh, seconds) == (False, 60.0)
        return (replace(results[0], opinion=Judgement(Verdict.SUSPICIOUS, 0.81, "", "", 0.0)), *results[1:])

    async def life() -> None:
        await analysis(Script([window([0.9]), window([0.1])]), advise=judge).run()

    with caplog.at_level(logging.INFO):
        run_virtually(life())
    rows = [record.message.split("  ") for record in caplog.records if record.message.startswith("gpu:0")]
    assert [[cell.strip() for cell in row if cell][-2:] for row in rows] == [
        ["active", "0.60"],
        ["suspicious (model)", "0.81"],
    ]


@pytest.mark.parametrize("adviser", [Adviser(42.0, delay=1e6), Adviser(42.0, fault=ValueError("odd"))])
def test_advice_that_lags_or_fails_loses_no_run(adviser: Adviser, caplog: pytest.LogCaptureFixture):
    async def life() -> None:
        with_rules = await analysis(Script([window([0.9])])).run()
        made = analysis(Script([window([0.9])]), advise=adviser, timeout=60.0)
        run = await made.run()
        assert (run.results, made.fault) == (with_rules.results, "")
        assert asyncio.get_running_loop().time() <= 61

    run_virtually(life())
    assert [record.message for record in caplog.records if "no advice" in record.message]


def test_every_run_that_went_well_is_handed_on_and_nobody_can_undo_it(caplog: pytest.LogCaptureFixture):
    async def life() -> None:
        handed: list[Run] = []

        def refuse(run: Run) -> None:
            handed.append(run)
            raise ValueError("odd")

        made = analysis(Script([window([0.9])], SourceError("gone"), [window([0.1])]), on_run=refuse)
        first = await made.run()
        with pytest.raises(AnalysisError):
            await made.run()
        assert handed == [first]
        second = await made.run()
        assert handed == [first, second]
        assert list(made.runs) == [second, first]

    run_virtually(life())
    assert "the run could not be handed on" in caplog.text


def held_by(namespace: str, levels: list[float], **more: Any) -> GpuWindow:
    return window(levels, holders=(Holder(namespace, f"{namespace}-pod"),) if namespace else (), **more)


def test_figures_by_status_and_namespace_equal_those_by_hand(caplog: pytest.LogCaptureFixture):
    # Scores are 50u + 12u + 20m + 10 (60 + 340u)/400 = 70.5u + 20m + 1.5.
    windows = [
        held_by("a", [1.0], memory=0.5),  # 82
        held_by("a", [0.0], memory=0.5),  # 11.5
        held_by("b", [0.4], memory=0.5),  # 39.7
        held_by("", [0.0], memory=0.0),  # 1.5
        of(Sample()),  # nothing is known
    ]

    async def life() -> None:
        made = analysis(Script(windows))
        with caplog.at_level(logging.INFO):
            run = await made.run()
        assert [round(each.score, 6) for each in run.results] == [82, 11.5, 39.7, 1.5]
        assert run.unscored == 1
        assert [round(each.score, 6) for each in low(run.results, Thresholds())] == [1.5, 11.5]
        figures = statistics(run.results, run.thresholds)
        assert (figures.total_gpus, figures.low_utilization_count, figures.idle_count) == (4, 2, 1)
        assert figures.by_status == {"idle": 1, "low": 1, "normal": 1, "high": 1}
        assert [figures.avg_score, figures.min_score, figures.max_score] == pytest.approx([33.675, 1.5, 82])
        assert figures.by_namespace == {
            "": NamespaceStatistics(1, pytest.approx(1.5), 1),
            "a": NamespaceStatistics(2, pytest.approx(46.75), 1),
            "b": NamespaceStatistics(1, pytest.approx(39.7), 0),
        }

    run_virtually(life())
    said = [(record.levelname, record.message) for record in caplog.records if "analysis" in record.name]
    rows = [text.split() for level, text in said if level == "INFO"]
    assert rows[0] == ["GPU", "NAMESPACE", "HOLDER", "UTIL", "SCORE", "STATUS", "JUDGED", "SURE"]
    assert [row[4] for row in rows[1:]] == ["1.5", "11.5", "39.7", "82.0"]
    # The GPU that nobody holds is nobody's waste.
    assert [text for level, text in said if level == "WARNING"] == [
        "1 of 4 GPUs are held and score below 20: gpu:0 (a/a-pod, score 12)"
    ]


def test_no_gpus_are_no_error(caplog: pytest.LogCaptureFixture):
    async def life() -> None:
        with caplog.at_level(logging.INFO):
            assert (await analysis(Script([])).run()).results == ()

    run_virtually(life())
    assert [record.message for record in caplog.records if "analysis" in record.name] == ["no GPU has samples"]
    figures = statistics([], Thresholds())
    assert (figures.total_gpus, figures.avg_score, figures.by_namespace) == (0, None, {})
