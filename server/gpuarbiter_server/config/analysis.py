"""The section of the utilization analysis: its keys, their kinds, and what must fit together."""

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, PlainValidator, WithJsonSchema

from gpuarbiter_server.config import kinds
from gpuarbiter_server.config.problems import Fault
from gpuarbiter_server.config.sections import Section, live, restart
from gpuarbiter_server.config.units import format_duration

_MOST_STEPS = 1000
_MOST_RUNS = 1000
_MOST_WORKERS = 64
LANGUAGES = ("en", "zh")


def _number(high: float) -> Callable[[object], float]:
    def check(value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= high:
            raise ValueError(f"a number, 0 to {high:g}")
        return value

    return check


def _whole(high: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= high:
            raise ValueError(f"a whole number, 1 to {high}")
        return value

    return check


def _language(value: object) -> str:
    if not isinstance(value, str) or value.lower() not in LANGUAGES:
        raise ValueError(kinds.one_of(list(LANGUAGES)))
    return value.lower()


def _url(value: object) -> str:
    allowed = "the address of a Prometheus, such as http://prometheus:9090, or an empty text"
    if not isinstance(value, str) or not re.fullmatch(r"|https?://[!-~]{1,500}", value):
        raise ValueError(allowed)
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError(allowed) from None
    if value and (not parts.hostname or parts.query or parts.fragment):
        raise ValueError(allowed)
    return value.rstrip("/")


def _selector(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"\{[^\r\n]{0,500}\}", value):
        raise ValueError('a selector of Prometheus in braces, such as {pod!=""}; {} for every GPU')
    return value


def without_password(url: str) -> str:
    """A URL as it can be shown."""
    return re.sub(r"//[^/@]*@", "//…@", url)


Points = Annotated[
    float,
    PlainValidator(_number(100.0)),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 100}),
    kinds.Kind("0 to 100"),
]
Weight = Annotated[
    float,
    PlainValidator(_number(1000.0)),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1000}),
    kinds.Kind("0 to 1000"),
]
Runs = Annotated[
    int,
    PlainValidator(_whole(_MOST_RUNS)),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": _MOST_RUNS}),
    kinds.Kind(f"1 to {_MOST_RUNS}"),
]
Workers = Annotated[
    int,
    PlainValidator(_whole(_MOST_WORKERS)),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": _MOST_WORKERS}),
    kinds.Kind(f"1 to {_MOST_WORKERS}"),
]
Url = Annotated[
    str,
    PlainValidator(_url),
    WithJsonSchema({"type": "string", "pattern": "^(|https?://.+)$"}),
    kinds.Kind("http:// or https:// address"),
]
Selector = Annotated[
    str, PlainValidator(_selector), WithJsonSchema({"type": "string", "pattern": r"^\{.*\}$"}), kinds.Kind("selector")
]
Language = Annotated[
    str, PlainValidator(_language), WithJsonSchema({"enum": list(LANGUAGES)}), kinds.Kind(kinds.one_of(list(LANGUAGES)))
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

    def shown(self) -> dict[str, Any]:
        """All of it as a file would say it, without secrets."""
        tree = self.model_dump(by_alias=True)
        tree["prometheus"]["url"] = without_password(self.prometheus.url)
        return tree


def analysis_faults(section: AnalysisSection) -> Iterator[Fault]:
    """What does not fit together."""
    if not section.step <= section.time_window <= section.step * _MOST_STEPS:
        yield Fault(
            ("analysis", "time_window"),
            format_duration(section.time_window),
            f"1 to {_MOST_STEPS} times analysis.step",
        )
    limits = section.thresholds
    if not limits.idle <= limits.low <= limits.high:
        yield Fault(
            ("analysis", "thresholds"), f"{limits.idle:g}, {limits.low:g}, {limits.high:g}", "idle <= low <= high"
        )
    weights = section.weights
    if not (weights.utilization or weights.memory_bandwidth or weights.memory or weights.power):
        yield Fault(("analysis", "weights"), None, "at least one that is above 0", wrong="all are 0")
