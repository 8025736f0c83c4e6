"""Which GPUs a model is asked about, which of its answers count, and that nothing is lost by it."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from fakes.virtual_loop import run_virtually
from gpuarbiter_server.analysis import opinions
from gpuarbiter_server.analysis.asking import Asker, ModelSettings
from gpuarbiter_server.analysis.model import Holder, Judgement, Language, Result, Thresholds, Verdict
from gpuarbiter_server.analysis.opinions import Opinions
from gpuarbiter_server.analysis.outcomes import NoAnswerError, Outcome
from gpuarbiter_server.analysis.service import Settings, evaluate
from gpuarbiter_server.telemetry import catalogue
from server.analysis.windows import window

SURE = Judgement(Verdict.SUSPICIOUS, 0.9, "It says so.", "Ask it.", 3.0)


def results(*levels: float) -> tuple[Result, ...]:
    """A GPU for each level, each held by somebody else."""
    gpus = [
        replace(window([level] * 20, memory=0.1, holders=(Holder("a", f"pod-{at}"),)), gpu_id=f"gpu:{at}")
        for at, level in enumerate(levels)
    ]
    return evaluate(gpus, Settings())


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual time knows nothing of threads."""

    async def inline(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", inline)


class Mind:
    """Answers by the name of the GPU what it is told to, else that it is sure, each after so many seconds."""

    def __init__(self, *, delay: float = 0.0, **answers: Judgement | Outcome) -> None:
        self.answers: dict[str, Judgement | Outcome | Exception] = {
            f"gpu:{name[1:]}": answer for name, answer in answers.items()
        }
        self.delay = delay
        self.trouble = ""
        self.cannot: NoAnswerError | None = None
        self.asked: list[str] = []
        self.prepared: list[ModelSettings] = []
        self.at_once = self.most_at_once = 0
        self.closed = False

    async def prepare(self, settings: ModelSettings) -> None:
        self.prepared.append(settings)
        if self.cannot is not None:
            raise self.cannot

    async def ask(self, result: Result) -> Judgement:
        self.asked.append(result.gpu.gpu_id)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.at_once -= 1
        answer = self.answers.get(result.gpu.gpu_id, SURE)
        if isinstance(answer, Outcome):
            raise NoAnswerError(answer, "said so")
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        self.closed = True


class Site:
    def __init__(self, mind: Mind | None, **settings: Any) -> None:
        self.counted: list[str] = []
        self.settings = ModelSettings(enabled=True, model="stand-in", **settings)
        clock: Callable[[], float] = asyncio.get_running_loop().time
        self.opinions = Opinions(cast("Asker | None", mind), self.settings, clock=clock, count=self.counted.append)

    async def judged(self, given: tuple[Result, ...], *, fresh: bool = False, seconds: float = 60.0) -> dict[str, str]:
        """The reasons of the opinions by GPU; everything else is as it was given."""
        self.counted.clear()
        found = await self.opinions.advise(given, fresh=fresh, seconds=seconds)
        assert [replace(each, opinion=None) for each in found] == list(given)
        assert all(each.shown is (each.opinion or each.judgement) for each in found)
        return {each.gpu.gpu_id: each.opinion.reason for each in found if each.opinion}


def test_it_is_asked_about_low_gpus_the_lowest_first_or_about_all():
    async def life() -> None:
        mind = Mind()
        site = Site(mind, max_workers=1)
        given = results(0.9, 0.15, 0.0, 0.5)
        assert set(await site.judged(given)) == {"gpu:1", "gpu:2"}
        assert (mind.asked, site.counted) == (["gpu:2", "gpu:1"], ["ok", "ok"])
        site.opinions.configure(replace(site.settings, all_gpus=True))
        assert len(await site.judged(given)) == 4
        assert mind.asked[2:] == ["gpu:3", "gpu:0"]
        assert sorted(site.counted) == ["cached", "cached", "ok", "ok"]

    run_virtually(life())


@pytest.mark.parametrize(
    "outcome", [each for each in Outcome if each not in {Outcome.OK, Outcome.UNSURE, Outcome.CACHED}]
)
def test_whatever_goes_wrong_with_one_leaves_it_to_the_rules_and_the_others_alone(
    outcome: Outcome, caplog: pytest.LogCaptureFixture
):
    async def life() -> None:
        site = Site(Mind(g1=outcome))
        assert set(await site.judged(results(0.0, 0.0, 0.0))) == {"gpu:0", "gpu:2"}
        assert sorted(site.counted) == sorted(["ok", "ok", outcome.value])

    run_virtually(life())
    (record,) = caplog.records
    assert (record.levelname, record.message) == ("WARNING", f"stand-in judged 2 of 3 GPUs: 2 ok, 1 {outcome.value}")


def test_an_answer_that_is_not_sure_enough_does_not_count(caplog: pytest.LogCaptureFixture):
    async def life() -> None:
        site = Site(Mind(g0=replace(SURE, confidence=0.69), g1=replace(SURE, confidence=0.7)), threshold=0.7)
        given = results(0.0, 0.0)
        assert set(await site.judged(given)) == {"gpu:1"}
        assert sorted(site.counted) == ["ok", "unsure"]
        # A lower threshold holds for earlier answers, too.
        site.opinions.configure(replace(site.settings, threshold=0.5))
        assert len(await site.judged(given)) == 2
        site.opinions.configure(replace(site.settings, threshold=0.95))
        assert await site.judged(given) == {}
        assert site.counted == ["cached", "cached"]

    with caplog.at_level(logging.INFO):
        run_virtually(life())
    assert caplog.records[0].message == "stand-in judged 1 of 2 GPUs: 1 unsure, 1 ok"
    assert {record.levelname for record in caplog.records} == {"INFO"}


def test_what_is_not_answered_when_the_time_is_over_keeps_the_rules():
    async def life() -> None:
        mind = Mind(delay=4.0)
        site = Site(mind, max_workers=2)
        given = results(*[0.0] * 10)
        assert len(await site.judged(given, seconds=10.0)) == 4
        assert asyncio.get_running_loop().time() == 10
        assert (mind.most_at_once, mind.at_once) == (2, 0)
        assert sorted(site.counted) == ["ok"] * 4 + ["timeout"] * 6
        # What was answered is remembered, whatever time is left.
        assert len(await site.judged(given, seconds=-1.0)) == 4

    run_virtually(life())


def test_an_answer_counts_for_as_long_as_the_gpu_looks_the_same():
    async def life() -> None:
        mind = Mind()
        site = Site(mind, cache=100.0)
        given = results(0.0)
        for seconds, asked in ((0, 1), (99, 1), (1, 2), (100, 3)):
            await asyncio.sleep(seconds)
            assert len(await site.judged(given)) == 1
            assert len(mind.asked) == asked
        assert len(await site.judged(given, fresh=True)) == 1
        assert len(mind.asked) == 4
        for changes in ({"model": "other"}, {"language": Language.CHINESE}, {"thresholds": Thresholds(5, 20, 70)}):
            site.opinions.configure(replace(site.settings, **changes))
            await site.judged(given)
            assert site.counted == ["ok"]
        site.opinions.configure(site.settings)
        await site.judged(results(0.1))
        assert site.counted == ["ok"]
        site.opinions.configure(replace(site.settings, cache=0.0))
        await site.judged(given)
        assert site.counted == ["ok"]

    run_virtually(life())


def test_what_is_remembered_has_a_bound_and_the_oldest_goes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(opinions, "_MOST_REMEMBERED", 2)

    async def life() -> None:
        site = Site(Mind(), max_workers=1)
        given = results(0.0, 0.0, 0.0)
        await site.judged(given)
        await site.judged(given[1:])
        assert site.counted == ["cached", "cached"]
        await site.judged(given[:1])
        assert site.counted == ["ok"]

    run_virtually(life())


def test_a_key_that_cannot_be_had_is_an_error_for_each_and_earlier_answers_still_count():
    async def life() -> None:
        mind = Mind()
        site = Site(mind)
        await site.judged(results(0.0))
        mind.cannot = NoAnswerError(Outcome.ERROR, "no key")
        assert set(await site.judged(results(0.0, 0.0, 0.0))) == {"gpu:0"}
        assert sorted(site.counted) == ["cached", "error", "error"]

    run_virtually(life())


def test_where_there_is_none_or_it_is_off_nothing_is_asked():
    async def life() -> None:
        given = results(0.0)
        for mind, settings in ((None, {}), (Mind(), {"enabled": False})):
            site = Site(mind)
            site.opinions.configure(replace(site.settings, **settings))
            assert (await site.judged(given), site.counted) == ({}, [])
            assert (site.opinions.enabled, site.opinions.trouble) == (False, "")
            await site.opinions.close()
        assert mind is not None
        assert (mind.prepared, mind.closed) == ([], True)
        mind.trouble = "HTTP 500"
        site.opinions.configure(site.settings)
        assert (site.opinions.enabled, site.opinions.trouble) == (True, "HTTP 500")
        await site.judged(results(0.9))
        assert (site.counted, mind.prepared) == ([], [])

    run_virtually(life())


def test_who_stops_waiting_ends_the_questions():
    async def life() -> None:
        mind = Mind(delay=1e6)
        task = asyncio.ensure_future(Site(mind).judged(results(0.0, 0.0), seconds=1e7))
        await asyncio.sleep(1)
        assert mind.at_once == 2
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert mind.at_once == 0

    run_virtually(life())


def test_every_outcome_is_a_value_of_the_metric():
    (label,) = catalogue.MODEL_REQUESTS.labels
    assert label.values == tuple(outcome.value for outcome in Outcome)
