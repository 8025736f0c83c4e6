"""Puts what a rule says into words, with the figures that it rests on."""

from collections.abc import Iterable

from gpuarbiter_server.analysis.model import Features, GpuWindow, Language, Score
from gpuarbiter_server.analysis.texts import COMMA, DOUBTS, HOLDER, JOINT, PARTS, RULES, UNITS, Doubt, Rule

_TWO_MINUTES = 120


def wording(
    rule: Rule,
    doubts: Iterable[Doubt],
    gpu: GpuWindow,
    scored: Score,
    seen: Features | None,
    language: Language,
) -> tuple[str, str]:
    """The reason and the recommendation."""
    facts = _facts(gpu, scored, seen, language)
    reason, recommendation = RULES[language][rule]
    said = [reason, *(DOUBTS[language][doubt] for doubt in doubts)]
    return JOINT[language].join(text.format(**facts) for text in said), recommendation.format(**facts)


def _facts(gpu: GpuWindow, scored: Score, seen: Features | None, language: Language) -> dict[str, str]:
    """What a text can name."""
    names = PARTS[language]
    holder = gpu.holders[0] if gpu.holders else None
    facts = {
        "score": f"{scored.value:.0f}",
        "span": _time(gpu.steps * gpu.step, language),
        "missing": COMMA[language].join(names[part] for part in scored.missing),
        "who": (holder and (holder.name or holder.namespace)) or HOLDER[language],
        "held": _time((holder and holder.held) or 0.0, language),
    }
    if seen is not None:
        facts |= {
            "mean": f"{seen.mean:.0%}",
            "deviation": f"{seen.deviation:.0%}",
            "highest": f"{seen.highest:.0%}",
            "recent": f"{seen.recent:.0%}",
            "steps": str(seen.steps),
            "busy": str(seen.busy_steps),
            "quiet": _time(seen.quiet_since * gpu.step, language),
            "coverage": f"{seen.coverage:.0%}",
            "memory": f"{seen.memory_bytes / 2**30:.1f} GiB",
            "power": f"{seen.power or 0:.0%}",
        }
    return facts


def _time(seconds: float, language: Language) -> str:
    minutes, short = UNITS[language]
    return f"{seconds / 60:.0f}{minutes}" if seconds >= _TWO_MINUTES else f"{seconds:.0f}{short}"
