"""Whether a GPU is used, by rules that explain themselves: the first that fits says what is thought and why.

Law: pure. A judgement never raises a doubt that its reason does not name: what is missing, a window with holes and a
holder who only just came lower the confidence, and are told.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from gpuarbiter_server.analysis import scoring
from gpuarbiter_server.analysis.features import BUSY
from gpuarbiter_server.analysis.model import (
    Features,
    GpuWindow,
    Judgement,
    Language,
    Sample,
    Score,
    Verdict,
    Weights,
)
from gpuarbiter_server.analysis.texts import Doubt, Rule
from gpuarbiter_server.analysis.wording import wording

# A GPU that works draws more of its limit than this: an H100 idles at a tenth of it, others at less.
_IDLE_POWER = 0.15
# Less memory than this is what a context takes, and no sign of a model.
_HELD_MEMORY = 0.1
_LITTLE_WORK = 0.2
# Steady work varies less than this.
_SPREAD = 0.25
_LEAST_CONFIDENCE = 0.3


class _Ruling(NamedTuple):
    verdict: Verdict
    confidence: float
    # The samples that the adjusted score counts, of those of the window.
    counted: Callable[[tuple[Sample, ...]], tuple[Sample, ...]]


def _all(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    return samples


def _recent(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    return samples[-max(1, len(samples) // 4) :]


def _busy(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    return tuple(sample for sample in samples if max(sample.utilization or 0.0, sample.peak or 0.0) > BUSY)


_RULINGS = {
    Rule.BLIND: _Ruling(Verdict.ACTIVE, 0.3, _all),
    Rule.BLIND_AND_LOW: _Ruling(Verdict.IDLE, 0.3, _all),
    Rule.SPINS: _Ruling(Verdict.SUSPICIOUS, 0.7, _all),
    Rule.OCCUPIED: _Ruling(Verdict.SUSPICIOUS, 0.9, _all),
    Rule.UNKNOWN_OCCUPANT: _Ruling(Verdict.SUSPICIOUS, 0.8, _all),
    Rule.HELD: _Ruling(Verdict.IDLE, 0.95, _all),
    Rule.FREE: _Ruling(Verdict.IDLE, 0.95, _all),
    Rule.STOPPED: _Ruling(Verdict.IDLE, 0.7, _recent),
    Rule.STARTED: _Ruling(Verdict.ACTIVE, 0.75, _recent),
    Rule.BURSTS: _Ruling(Verdict.ACTIVE, 0.8, _busy),
    Rule.LITTLE: _Ruling(Verdict.ACTIVE, 0.6, _all),
    Rule.VARIES: _Ruling(Verdict.ACTIVE, 0.85, _all),
    Rule.WORKS: _Ruling(Verdict.ACTIVE, 0.95, _all),
}


def judge(gpu: GpuWindow, scored: Score, seen: Features | None, weights: Weights, language: Language) -> Judgement:
    """What is to be thought of a GPU that has a score, by its features."""
    assert scored.value is not None
    rule = _rule(gpu, scored.value, seen)
    ruling = _RULINGS[rule]
    doubts = list(_doubts(gpu, scored, seen, ruling.verdict))
    confidence = ruling.confidence
    for _, factor in doubts:
        confidence *= factor
    adjusted = scoring.score(replace(gpu, samples=ruling.counted(gpu.samples)), weights).value
    reason, recommendation = wording(rule, [doubt for doubt, _ in doubts], gpu, scored, seen, language)
    return Judgement(
        ruling.verdict, round(confidence, 2), reason, recommendation, scored.value if adjusted is None else adjusted
    )


def _rule(gpu: GpuWindow, score: float, seen: Features | None) -> Rule:
    if seen is None:
        return Rule.BLIND if score >= 100 * _LITTLE_WORK else Rule.BLIND_AND_LOW
    if seen.mean > BUSY and seen.power is not None and seen.power < _IDLE_POWER:
        return Rule.SPINS
    if seen.quiet_steps == seen.steps:
        return _quiet(gpu, seen)
    return _working(seen)


def _quiet(gpu: GpuWindow, seen: Features) -> Rule:
    """It did nothing in the whole window."""
    if seen.memory is not None and seen.memory >= _HELD_MEMORY and seen.memory_bytes:
        return Rule.OCCUPIED if gpu.holders else Rule.UNKNOWN_OCCUPANT
    return Rule.HELD if gpu.holders else Rule.FREE


def _working(seen: Features) -> Rule:
    """It did something at least once."""
    quarter = max(2, seen.steps // 4)
    if seen.trend < 0 and seen.quiet_since >= quarter:
        return Rule.STOPPED
    if seen.trend > 0 and seen.quiet_until >= quarter and seen.recent >= _LITTLE_WORK:
        return Rule.STARTED
    # Bursts leave quiet steps between them, or are shorter than a step.
    if seen.busy_steps and (seen.quiet_steps >= quarter or seen.mean < _LITTLE_WORK):
        return Rule.BURSTS
    if seen.mean < _LITTLE_WORK:
        return Rule.LITTLE
    return Rule.VARIES if seen.deviation >= _SPREAD else Rule.WORKS


def _doubts(gpu: GpuWindow, scored: Score, seen: Features | None, verdict: Verdict) -> list[tuple[Doubt, float]]:
    """What lowers the confidence, and by which factor."""
    found = []
    if scored.missing:
        found.append((Doubt.MISSING, 0.9))
    if seen is not None and seen.coverage < 1 - 1 / gpu.steps:
        found.append((Doubt.HOLES, 0.5 + seen.coverage / 2))
    held = gpu.holders[0].held if gpu.holders else None
    span = gpu.steps * gpu.step
    if verdict is not Verdict.ACTIVE and held is not None and held < span:
        found.append((Doubt.NEW_HOLDER, max(_LEAST_CONFIDENCE, held / span)))
    return found
