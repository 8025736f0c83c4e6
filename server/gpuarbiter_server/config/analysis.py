"""The section of the utilization analysis: its keys, their kinds, and what must fit together."""

import re
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema

from gpuarbiter_server.config import kinds
from gpuarbiter_server.config.analysis_actions import ActionsSection, ControlSection, NotifySection, actions_faults
from gpuarbiter_server.config.analysis_ai import AiSection, ai_faults
from gpuarbiter_server.config.masks import MASK, MASKED, masked_by, without_password
from gpuarbiter_server.config.problems import Fault, not_shown
from gpuarbiter_server.config.sections import Section, live, restart
from gpuarbiter_server.config.state import AUTO
from gpuarbiter_server.config.units import DURATION_PATTERN, format_duration

_MOST_STEPS = 1000
_MOST_RUNS = 1000
_MOST_WORKERS = 64
LANGUAGES = ("en", "zh")


def _url(value: object) -> str:
    if not isinstance(value, str) or not _is_url(value):
        allowed = "the address of a Prometheus, such as http://prometheus:9090, or an empty text"
        if MASK in str(value):
            allowed += f"; {MASK} stands for a password that is not shown: write it, or leave the key out"
        if "@" in str(value):
            # There may be a password before it.
            raise not_shown(allowed)
        raise ValueError(allowed)
    return value.rstrip("/")


def _is_url(text: str) -> bool:
    if not text:
        return True
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    plain = re.fullmatch(r"https?://[!-~]{1,500}", text) is not None
    return plain and bool(parts.hostname) and not parts.query and not parts.fragment


def _span(value: object) -> float | None:
    if value == AUTO:
        return None
    try:
        return kinds.longer_than_zero(value)
    except ValueError as error:
        raise ValueError(f"{AUTO}, or {error}") from None


def _format_span(seconds: float | None) -> str:
    return AUTO if seconds is None else format_duration(seconds)


def _selector(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"\{[^\r\n]{0,500}\}", value):
        raise ValueError('a selector of Prometheus in braces, such as {pod!=""}; {} for every GPU')
    return value


Points = Annotated[
    float,
    PlainValidator(kinds.number(100.0)),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 100}),
    kinds.Kind("0 to 100"),
]
Weight = Annotated[
    float,
    PlainValidator(kinds.number(1000.0)),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1000}),
    kinds.Kind("0 to 1000"),
]
Runs = Annotated[
    int,
    PlainValidator(kinds.whole(1, _MOST_RUNS)),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": _MOST_RUNS}),
    kinds.Kind(f"1 to {_MOST_RUNS}"),
]
Workers = Annotated[
    int,
    PlainValidator(kinds.whole(1, _MOST_WORKERS)),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": _MOST_WORKERS}),
    kinds.Kind(f"1 to {_MOST_WORKERS}"),
]
Url = Annotated[
    str,
    PlainValidator(_url),
    masked_by(without_password),
    WithJsonSchema({"type": "string", "pattern": "^(|https?://.+)$"}),
    kinds.Kind("http:// or https:// address"),
]
Span = Annotated[
    float | None,
    PlainValidator(_span),
    PlainSerializer(_format_span),
    WithJsonSchema({"anyOf": [{"enum": [AUTO]}, {"type": "string", "pattern": DURATION_PATTERN}]}),
    kinds.Kind("auto or duration"),
]
Selector = Annotated[
    str, PlainValidator(_selector), WithJsonSchema({"type": "string", "pattern": r"^\{.*\}$"}), kinds.Kind("selector")
]
Language = Annotated[
    str,
    PlainValidator(kinds.word(LANGUAGES)),
    WithJsonSchema({"enum": list(LANGUAGES)}),
    kinds.Kind(kinds.one_of(list(LANGUAGES))),
]


class ThresholdsSection(Section):
    """Scores below which a GPU has a status."""

    idle: Points = live(10, "Below it a GPU is idle.")
    low: Points = live(20, "Below it, and not idle, a GPU is low; at least idle.")
    high: Points = live(70, "From it on a GPU is high, below it normal; at least low.")


class WeightsSection(Section):
    """What the score is made of; the proportions matter."""

    utilization: Weight = live(0.5, "Share of time with work on the GPU.")
    memory_bandwidth: Weight = live(0.2, "Share of time with memory traffic.")
    memory: Weight = live(0.2, "Memory used, of the total.")
    power: Weight = live(0.1, "Power draw, of the limit.")


class PrometheusSection(Section):
    """A Prometheus that scrapes DCGM exporters, instead of the node's own samples."""

    url: Url = restart("", "Its address; empty: the node's own samples. May hold `user:password@`.")
    selector: Selector = restart('{pod!=""}', "Which series of the exporters count; `{}`: all.")
    window: Span = restart(None, "What a run looks at there. auto: analysis.time_window.")
    step: Span = restart(None, "The step of its range queries. auto: analysis.step.")
    timeout: kinds.PositiveDuration = restart(10.0, "How long one query may take.")


class AnalysisSection(Section):
    """The utilization analysis: scores and judgements of the GPUs."""

    enabled: kinds.Flag = restart(True, "Whether the use of the GPUs is analyzed.")
    interval: kinds.PositiveDuration = live(300.0, "From one run to the next.")
    time_window: kinds.PositiveDuration = restart(600.0, "What a run looks at: the time up to now.")
    step: kinds.PositiveDuration = restart(
        30.0, f"Readings are averaged over this long; {_MOST_STEPS} steps at most are in a window."
    )
    timeout: kinds.PositiveDuration = live(60.0, "A run that takes longer is given up.")
    max_workers: Workers = restart(8, "Queries to a Prometheus at once.")
    history: Runs = restart(12, "Runs whose results are kept, in memory.")
    language: Language = live("en", "What reasons and recommendations are written in: English or Chinese.")
    thresholds: ThresholdsSection = Field(default_factory=ThresholdsSection)
    weights: WeightsSection = Field(default_factory=WeightsSection)
    prometheus: PrometheusSection = Field(default_factory=PrometheusSection)
    ai: AiSection = Field(default_factory=AiSection)
    actions: ActionsSection = Field(default_factory=ActionsSection)
    control: ControlSection = Field(default_factory=ControlSection)
    notify: NotifySection = Field(default_factory=NotifySection)

    def shown(self) -> dict[str, Any]:
        """All of it as a file would say it, without secrets."""
        return self.model_dump(by_alias=True, context=MASKED)

    def prometheus_span(self) -> tuple[float, float]:
        """The window and the step of the queries to a Prometheus, in seconds."""
        return self.prometheus.window or self.time_window, self.prometheus.step or self.step


def analysis_faults(section: AnalysisSection) -> Iterator[Fault]:
    """What does not fit together."""
    yield from ai_faults(section.ai)
    yield from actions_faults(section.control)
    if not section.step <= section.time_window <= section.step * _MOST_STEPS:
        yield Fault(
            ("analysis", "time_window"),
            format_duration(section.time_window),
            f"1 to {_MOST_STEPS} times analysis.step",
        )
    window, step = section.prometheus_span()
    has_own = section.prometheus.window or section.prometheus.step
    if has_own and not step <= window <= step * _MOST_STEPS:
        yield Fault(
            ("analysis", "prometheus", "window"),
            format_duration(window),
            f"1 to {_MOST_STEPS} times analysis.prometheus.step",
        )
    limits = section.thresholds
    if not limits.idle <= limits.low <= limits.high:
        yield Fault(
            ("analysis", "thresholds"), f"{limits.idle:g}, {limits.low:g}, {limits.high:g}", "idle <= low <= high"
        )
    weights = section.weights
    if not (weights.utilization or weights.memory_bandwidth or weights.memory or weights.power):
        yield Fault(("analysis", "weights"), None, "at least one that is above 0", wrong="all are 0")
