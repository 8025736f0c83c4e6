"""What the rules make of jobs that people know, and that their reasons name what they rest on."""

import string
from dataclasses import replace

import pytest

from gpuarbiter_server.analysis.features import features
from gpuarbiter_server.analysis.judgement import judge
from gpuarbiter_server.analysis.model import GpuWindow, Judgement, Language, Part, Sample, Verdict, Weights
from gpuarbiter_server.analysis.scoring import score
from gpuarbiter_server.analysis.texts import DOUBTS, PARTS, RULES, Doubt, Rule
from server.analysis.windows import GIB, SOMEBODY, of, window, working

ACTIVE, IDLE, SUSPICIOUS = Verdict.ACTIVE, Verdict.IDLE, Verdict.SUSPICIOUS
SPIN = Sample(1.0, 0.0, 40 * GIB, 44.0)


def judged(gpu: GpuWindow, language: Language = Language.ENGLISH) -> Judgement:
    return judge(gpu, score(gpu, Weights()), features(gpu), Weights(), language)


@pytest.mark.parametrize(
    ("gpu", "verdict", "said"),
    [
        (window([0.9, 0.94] * 10), ACTIVE, "It works steadily: 92% on average, 2% deviation."),
        (window([0.3, 1.0] * 10), ACTIVE, "It works, with large swings: 65% on average, 35% deviation."),
        (window([0.1] * 20), ACTIVE, "It works steadily but little: 10% on average, 10% at most."),
        (
            window(([0.0] * 3 + [0.9]) * 5),
            ACTIVE,
            "It works in bursts: 5 of 20 steps were busy, up to 90%; the mean is 22%.",
        ),
        (
            of(*[working(0.06, peak=1.0)] * 20),
            ACTIVE,
            "It works in bursts: 20 of 20 steps were busy, up to 100%; the mean is 6%.",
        ),
        (window([0.0] * 14 + [0.8] * 6), ACTIVE, "It was quiet at first and works now, at 80%."),
        (
            window([0.8] * 12 + [0.0] * 8),
            IDLE,
            "It worked before, up to 80%, but has done nothing for the last 4 min.",
        ),
        (window([0.0] * 20), SUSPICIOUS, "40.0 GiB of memory have been held for 10 min without any work."),
        (
            window([0.0] * 20, holders=()),
            SUSPICIOUS,
            "40.0 GiB of memory have been in use for 10 min without any work, and nobody is known to hold the GPU.",
        ),
        (
            window([0.01] * 20, memory=0.01),
            IDLE,
            "It is held, but has done no work for 10 min, and has next to nothing in its memory.",
        ),
        (
            window([0.0] * 20, memory=0.0, holders=()),
            IDLE,
            "Nobody is known to hold it, and it has done no work for 10 min.",
        ),
        (
            of(*[SPIN] * 20),
            SUSPICIOUS,
            "It shows 100% utilization but draws 11% of its power limit, as an idle GPU does: something spins.",
        ),
    ],
)
def test_jobs_are_judged_as_people_would(gpu: GpuWindow, verdict: Verdict, said: str):
    judgement = judged(gpu)
    assert (judgement.verdict, judgement.reason) == (verdict, said)
    assert 0.6 <= judgement.confidence <= 0.95
    assert judgement.recommendation


def test_the_adjusted_score_counts_what_matters_now():
    stopped, started = window([0.8] * 12 + [0.0] * 8), window([0.0] * 14 + [0.8] * 6)
    bursts, steady = window(([0.0] * 3 + [0.9]) * 5), window([0.9] * 20)
    assert judged(stopped).adjusted_score == score(window([0.0]), Weights()).value
    assert judged(started).adjusted_score == pytest.approx(score(window([0.8]), Weights()).value)
    assert judged(bursts).adjusted_score == pytest.approx(score(window([0.9]), Weights()).value)
    assert judged(steady).adjusted_score == score(steady, Weights()).value


def test_what_is_missing_costs_confidence_and_is_named():
    whole = judged(window([0.9] * 20))
    without = judged(window([0.9] * 20, power_limit_watts=None))
    assert without.confidence < whole.confidence
    assert without.reason.endswith("Not known: power or its limit; the score is made of the rest.")


def test_holes_in_the_window_cost_confidence_and_are_named():
    whole = judged(window([0.9] * 20))
    assert judged(window([0.9] * 19, steps=20)).confidence == whole.confidence, "one that is under way is no hole"
    judgement = judged(window([0.9] * 5, steps=20))
    assert judgement.confidence == pytest.approx(0.95 * 0.625, abs=0.01)
    assert "samples of 25% of the window" in judgement.reason


def test_who_only_just_came_is_not_blamed_with_confidence():
    new = SOMEBODY._replace(held=60.0)
    judgement = judged(window([0.0] * 20, holders=(new,)))
    assert judgement.confidence == pytest.approx(0.9 * 0.3, abs=0.01)
    assert judgement.reason.endswith("But trainer-0 has had it for 60 s only.")
    busy = judged(window([0.9] * 20, holders=(new,)))
    assert busy == judged(window([0.9] * 20)), "who works needs no excuse"


@pytest.mark.parametrize(("watts", "verdict"), [(380.0, ACTIVE), (40.0, IDLE)])
def test_without_utilization_it_says_that_it_guesses(watts: float, verdict: Verdict):
    judgement = judged(of(*[Sample(None, None, None, watts)] * 20))
    assert judgement.verdict is verdict
    assert judgement.confidence < 0.3
    assert judgement.reason.startswith("The utilization is not known")


def test_every_language_has_every_text_with_the_same_figures():
    english = Language.ENGLISH
    for language in Language:
        assert set(RULES[language]) == set(Rule)
        assert set(DOUBTS[language]) == set(Doubt)
        assert set(PARTS[language]) == set(Part)
        for rule in Rule:
            # Who holds it may go without saying where the sentence is about that.
            ours, theirs = fields(*RULES[language][rule]), fields(*RULES[english][rule])
            assert ours == theirs, rule
        for doubt in Doubt:
            assert fields(DOUBTS[language][doubt]) == fields(DOUBTS[english][doubt])


def test_it_can_be_said_in_chinese():
    judgement = judged(replace(window([0.0] * 20), power_limit_watts=None), Language.CHINESE)
    assert judgement.reason == (
        "占用 40.0 GiB 显存已达 10 分钟，期间没有任何计算。未知：功率或功率上限；评分仅由其余部分计算。"
    )
    assert "trainer-0" in judgement.recommendation


def fields(*texts: str) -> set[str]:
    return {name for text in texts for _, name, _, _ in string.Formatter().parse(text) if name}
