"""PromQL, built from the catalogue: a metric, label or label value that is renamed there fails here.

Law: no name of a metric or label is typed out. Every selector carries the dashboard's variables: job and instance
always, gpu and task where the metric has that label. Every quotient is guarded, so that an idle arbiter shows 0 or
nothing, never NaN.
"""

import re
from dataclasses import dataclass, replace

from gpuarbiter_server.telemetry.catalogue import ANY_GPU, Label, Metric, Values

# Labels that Prometheus gives to whatever it scrapes.
TARGET = ("job", "instance")
# What a rate is taken over: four scrapes at least, and the step of the graph.
STEP = "$__rate_interval"
# The time range that the dashboard shows.
RANGE = "$__range"
# Prometheus's own word on whether a scrape succeeded: what is down cannot say so itself.
UP = "up"

Where = str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Expr:
    """An expression, the labels that its result has, and the metrics in it."""

    text: str
    labels: tuple[str, ...]
    metrics: frozenset[Metric] = frozenset()

    def above_zero(self) -> "Expr":
        """Without the series that are 0: where most are, they only hide the others."""
        return replace(self, text=f"{self.text} > 0")


def selector(metric: Metric, suffix: str = "", /, **where: Where) -> str:
    """Its samples under the variables of the dashboard.

    Args:
        metric: of the catalogue.
        suffix: of a histogram, which of its series.
        where: labels with one value, or several to choose from; with `!` before them, what they are not.
    """
    known = {label.name: label for label in metric.labels}
    matchers = [f'{name}=~"${name}"' for name in TARGET]
    # What is only kept out by a label's condition still has to be among the chosen.
    chosen = {name for name, values in where.items() if not values[0].startswith("!")}
    if "gpu" in known and "gpu" not in chosen:
        # What waits for any GPU waits for the chosen one, too.
        any_too = f"|{ANY_GPU}" if known["gpu"].values is Values.GPUS_OR_ANY else ""
        matchers.append(f'gpu=~"$gpu{any_too}"')
    if "task" in known and "task" not in chosen:
        matchers.append('task=~"$task"')
    for name, values in where.items():
        if name not in known:
            raise ValueError(f"{metric.full_name} has no label {name}")
        matchers.append(_matcher(known[name], values))
    return f"{metric.full_name}{suffix}{{{', '.join(matchers)}}}"


def _matcher(label: Label, values: Where) -> str:
    every = (values,) if isinstance(values, str) else values
    for value in every:
        allowed = (ANY_GPU,) if label.values is Values.GPUS_OR_ANY else label.values
        if isinstance(allowed, tuple) and value.removeprefix("!") not in allowed:
            raise ValueError(f"{label.name} is never {value!r}")
    if every[0].startswith("!"):
        return f'{label.name}!~"{"|".join(value.removeprefix("!") for value in every)}"'
    return f'{label.name}="{every[0]}"' if len(every) == 1 else f'{label.name}=~"{"|".join(every)}"'


def _aggregate(how: str, metric: Metric, by: tuple[str, ...], inner: str) -> Expr:
    unknown = set(by) - {*metric.label_names, *TARGET}
    if unknown:
        raise ValueError(f"{metric.full_name} has no label {', '.join(sorted(unknown))}")
    grouped = f" by ({', '.join(by)})" if by else ""
    return Expr(f"{how}{grouped} ({inner})", by, frozenset({metric}))


def _expect(metric: Metric, *kinds: str) -> None:
    if metric.kind not in kinds:
        raise ValueError(f"{metric.full_name} is a {metric.kind}, not a {' or '.join(kinds)}")


# -- counters --


def rate(metric: Metric, by: tuple[str, ...] = (), **where: Where) -> Expr:
    """How much a counter grows a second."""
    _expect(metric, "counter")
    return _aggregate("sum", metric, by, f"rate({selector(metric, **where)}[{STEP}])")


def growth(metric: Metric, by: tuple[str, ...] = (), **where: Where) -> Expr:
    """How much a counter has grown in all of the time that is shown."""
    _expect(metric, "counter")
    return _aggregate("sum", metric, by, f"increase({selector(metric, **where)}[{RANGE}])")


def events(metric: Metric, by: tuple[str, ...] = (), **where: Where) -> Expr:
    """How often something happened that happens now and then, for each step of the graph."""
    _expect(metric, "counter")
    return _aggregate("sum", metric, by, f"increase({selector(metric, **where)}[{STEP}])")


# -- gauges --


def gauge(metric: Metric, by: tuple[str, ...] = (), how: str = "sum", **where: Where) -> Expr:
    """The value now: the sum of all, or the max or min."""
    _expect(metric, "gauge", "info")
    return _aggregate(how, metric, by, selector(metric, **where))


def age(metric: Metric, by: tuple[str, ...] = (), **where: Where) -> Expr:
    """How long ago the earliest of some timestamps is."""
    _expect(metric, "gauge")
    oldest = _aggregate("min", metric, by, selector(metric, **where))
    return replace(oldest, text=f"time() - {oldest.text}")


# -- histograms --


def quantile(share: float, metric: Metric, by: tuple[str, ...] = (), **where: Where) -> Expr:
    """The value that this share of the observations lies below; nothing while there are none."""
    _expect(metric, "histogram")
    counts = _aggregate("sum", metric, by, f"rate({selector(metric, '_bucket', **where)}[{STEP}])")
    buckets = counts.text.replace("sum by (", "sum by (le, ", 1) if by else counts.text.replace("sum", "sum by (le)", 1)
    # The quantile of nothing is NaN, which no comparison lets through.
    return replace(counts, text=f"histogram_quantile({share:g}, {buckets}) >= 0")


def mean(metric: Metric, by: tuple[str, ...] = (), **where: Where) -> Expr:
    """The average of the observations; nothing while there are none."""
    _expect(metric, "histogram")
    sums = _aggregate("sum", metric, by, f"rate({selector(metric, '_sum', **where)}[{STEP}])")
    counts = _aggregate("sum", metric, by, f"rate({selector(metric, '_count', **where)}[{STEP}])")
    return replace(sums, text=f"{sums.text} / ({counts.text} > 0)")


# -- of several --


def share(part: Expr, whole: Expr) -> Expr:
    """A part of a whole as a ratio; 0 where the whole is 0, and nothing where there is no whole."""
    _same_labels(part, whole)
    return combine(f"{part.text} / ({whole.text} > 0) or 0 * {whole.text}", part, whole)


def difference(left: Expr, right: Expr) -> Expr:
    """One less the other."""
    _same_labels(left, right)
    return combine(f"{left.text} - {right.text}", left, right)


def combine(text: str, *parts: Expr) -> Expr:
    """An expression that was made of parts, with the labels of the first."""
    return Expr(text, parts[0].labels, frozenset().union(*(part.metrics for part in parts)))


def _same_labels(left: Expr, right: Expr) -> None:
    if set(left.labels) != set(right.labels):
        raise ValueError(f"{left.labels} and {right.labels} do not match")


def reachable() -> Expr:
    """Whether Prometheus reaches the arbiters."""
    filters = ", ".join(f'{name}=~"${name}"' for name in TARGET)
    return Expr(f"max by (instance) ({UP}{{{filters}}})", ("instance",))


def check_legend(expr: Expr, legend: str) -> None:
    """A legend may speak of the labels that the result has, and of no others."""
    unknown = set(re.findall(r"\{\{(\w+)\}\}", legend)) - set(expr.labels)
    if unknown:
        raise ValueError(f"the legend {legend!r} names {', '.join(sorted(unknown))}, which {expr.text} does not have")
