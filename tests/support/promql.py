"""What a PromQL expression asks of the metrics, found without a parser of Prometheus: names, matchers, grouping labels.

It is enough to find a name, a label or a value that does not exist; that an expression is right, promtool says.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from gpuarbiter_server.telemetry.catalogue import CATALOGUE, PREFIX, Metric, Values

# Labels of every series: of the target, of a histogram, and the name itself.
COMMON = frozenset({"__name__", "job", "instance", "le"})
_NAME = re.compile(r"(?<![\w:\"])(?:[a-z_]+:)?" + PREFIX + r"[a-z0-9_]+(?::\w+)?")
_SELECTOR = re.compile(rf"({_NAME.pattern})\s*(?:\{{([^}}]*)\}})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SUFFIXES = ("", "_bucket", "_count", "_sum")
# The words that the level of a recording rule is made of, and the label that each stands for.
LEVELS = {
    "instance": None,
    "gpu": "gpu",
    "task": "task",
    "reason": "reason",
    "device": "device",
    "status": "status",
    "namespace": "holder_namespace",
}

METRICS: Mapping[str, Metric] = {
    metric.full_name + suffix: metric
    for metric in CATALOGUE
    for suffix in (_SUFFIXES if metric.kind == "histogram" else ("",))
    # Of a histogram there is no sample by its bare name.
    if metric.kind != "histogram" or suffix
}


@dataclass(frozen=True)
class Selector:
    """A series that is asked for, with its matchers: label, operator, value."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]


def names(text: str) -> set[str]:
    """Every name of ours, of metrics and of recording rules, in an expression or in prose."""
    return {found.group() for found in _NAME.finditer(text)}


def selectors(expression: str) -> list[Selector]:
    """What it reads."""
    return [Selector(name, tuple(_MATCHER.findall(matchers or ""))) for name, matchers in _SELECTOR.findall(expression)]


def labels_of(name: str) -> frozenset[str]:
    """The labels that a series of ours can have; of a recording rule, as its level says."""
    if name in METRICS:
        return COMMON | set(METRICS[name].label_names)
    level, _, _ = name.partition(":")
    return COMMON | {label for word in level.split("_") if (label := LEVELS[word])}


def problems(expression: str, recorded: Iterable[str]) -> Iterator[str]:
    """Names, labels and values in it that do not exist."""
    recorded = set(recorded)
    found = selectors(expression)
    for selector in found:
        if selector.name not in METRICS and selector.name not in recorded:
            yield f"there is no {selector.name}"
        else:
            yield from _bad_matchers(selector)
    known = frozenset().union(*(labels_of(each.name) for each in found if each.name in METRICS.keys() | recorded))
    for group in _GROUPING.findall(expression):
        for label in (part.strip() for part in group.split(",") if part.strip()):
            if found and label not in known:
                yield f"nothing in it has the label {label}"


def _bad_matchers(selector: Selector) -> Iterator[str]:
    for label, operator, value in selector.matchers:
        if label not in labels_of(selector.name):
            yield f"{selector.name} has no label {label}"
        # A fixed value, or several with | between them.
        elif not all(can_be(selector.name, label, each) for each in (value.split("|") if "~" in operator else [value])):
            yield f"{selector.name} has no {label}={value}"


def can_be(name: str, label: str, value: str) -> bool:
    """Whether a label can have this value; what is not fixed can have any."""
    if label == "gpu":
        takes_any = name in METRICS and _values(METRICS[name], label) is Values.GPUS_OR_ANY
        return re.fullmatch(r"gpu:\d+(/\d+)?", value) is not None or (value == "any" and takes_any)
    of = [METRICS[name]] if name in METRICS else [metric for metric in CATALOGUE if label in metric.label_names]
    fixed = [values for metric in of if isinstance(values := _values(metric, label), tuple)]
    return not fixed or any(value in values for values in fixed)


def _values(metric: Metric, label: str) -> tuple[str, ...] | Values | None:
    return next((each.values for each in metric.labels if each.name == label), None)
