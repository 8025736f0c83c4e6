"""Where counts and distributions are kept between scrapes, one object per label set, each with its text ready.

Why not the objects of prometheus_client: its exposition takes about 13 µs a line, and with every known label set
there from the start a scrape would hold the interpreter for tens of milliseconds. Here a line is made when its
value has changed, and is otherwise only copied (docs/decisions/0008).

Law: a series has one thread that changes it. A scrape may read it meanwhile: a text counts as old until it was made
after the last change, never the other way round.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import product
from math import isfinite, prod
from time import time

from gpuarbiter_server.telemetry.catalogue import Metric

# The labels of an exemplar, and its text as OpenMetrics has it behind a value.
Exemplar = tuple[str, str]


def labelled(name: str, names: Iterable[str], values: Iterable[str], *, more: str = "") -> str:
    """What stands before the value on a line: the name, and its labels in braces where there are any."""
    pairs = [f'{label}="{escaped(value)}"' for label, value in zip(names, values, strict=True)]
    if more:
        pairs.append(more)
    return f"{name}{{{','.join(pairs)}}} " if pairs else f"{name} "


def escaped(value: str) -> str:
    """The value of a label, between its quotes."""
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def number(value: float) -> str:
    """A value as both formats have it."""
    if not isfinite(value):
        return {"inf": "+Inf", "-inf": "-Inf"}.get(repr(value), "NaN")
    whole = int(value)
    return str(whole) if whole == value and abs(whole) < 1 << 53 else repr(float(value))


class Value:
    """The value of one label set."""

    __slots__ = ("_line", "_old", "_prefix", "_value")

    def __init__(self, prefix: str, value: float | None) -> None:
        self._prefix = prefix
        self._value = value
        self._line = ""
        self._old = True

    @property
    def value(self) -> float | None:
        """The value now; None: there is none."""
        return self._value

    def inc(self, by: float = 1.0) -> None:
        """Counts."""
        self._value = (self._value or 0.0) + by
        self._old = True

    def set(self, value: float | None) -> None:
        """What it is now; None: it is not shown."""
        if value != self._value:
            self._value = value
            self._old = True

    def lines(self) -> Iterator[str]:
        """Its line, or none."""
        if self._old:
            self._old = False
            value = self._value
            self._line = "" if value is None else self._prefix + number(value) + "\n"
        if self._line:
            yield self._line


class Distribution:
    """How often values of one label set fell into each bucket."""

    __slots__ = ("_bounds", "_counts", "_exemplars", "_old", "_prefixes", "_sum", "_tail", "_text")

    def __init__(self, metric: Metric, values: tuple[str, ...]) -> None:
        name, names = metric.full_name, metric.label_names
        self._bounds = metric.buckets
        self._counts = [0] * (len(metric.buckets) + 1)
        self._sum = 0.0
        bounds = [*(repr(bound) for bound in metric.buckets), "+Inf"]
        self._prefixes = [labelled(f"{name}_bucket", names, values, more=f'le="{bound}"') for bound in bounds]
        self._tail = labelled(f"{name}_count", names, values), labelled(f"{name}_sum", names, values)
        # By bucket, the last value there that a trace goes with.
        self._exemplars: dict[int, str] = {}
        self._text = ""
        self._old = True

    def observe(self, value: float, exemplar: Exemplar | None = None) -> None:
        """One more value; exemplar: the ids of the trace and span that it belongs to, in hex."""
        bucket = bisect_left(self._bounds, value)
        self._counts[bucket] += 1
        self._sum += value
        self._old = True
        if exemplar is not None:
            trace, span = exemplar
            self._exemplars[bucket] = f' # {{trace_id="{trace}",span_id="{span}"}} {number(value)} {time():.3f}'

    def lines(self, *, exemplars: bool) -> Iterator[str]:
        """Its lines; exemplars: with those, as only OpenMetrics can have them."""
        if exemplars and self._exemplars:
            yield self._render(self._exemplars)
        else:
            if self._old:
                self._old = False
                self._text = self._render({})
            yield self._text

    def _render(self, exemplars: dict[int, str]) -> str:
        lines, total = [], 0
        for bucket, (prefix, count) in enumerate(zip(self._prefixes, self._counts, strict=True)):
            total += count
            lines.append(f"{prefix}{total}{exemplars.get(bucket, '')}\n")
        count_prefix, sum_prefix = self._tail
        return "".join((*lines, f"{count_prefix}{total}\n", f"{sum_prefix}{number(self._sum)}\n"))


# Label sets of one family that are made before they are met: a page of more would be mostly zeros, and with hundreds of
# task types on dozens of GPUs making them took the loop for seconds.
MOST_EXPECTED = 2_000


class Values(dict[tuple[str, ...], Value]):
    """The values of a family by their labels; one that is asked for is there from then on."""

    def __init__(self, metric: Metric, start: float | None = 0.0) -> None:
        super().__init__()
        self.metric = metric
        self._start = start

    def __missing__(self, labels: tuple[str, ...]) -> Value:
        made = Value(labelled(self.metric.full_name, self.metric.label_names, labels), self._start)
        self[labels] = made
        return made

    def expect(self, *domains: Iterable[str]) -> None:
        """Every combination of these values of its labels is shown from now on, unless there are too many."""
        values = [tuple(domain) for domain in domains]
        if prod(map(len, values)) <= MOST_EXPECTED:
            for labels in product(*values):
                _ = self[labels]

    def drop_unused(self, *domains: Iterable[str]) -> None:
        """Forgets what was never counted and is none of these combinations."""
        known = [frozenset(domain) for domain in domains]
        for labels, value in list(self.items()):
            if not value.value and not all(label in domain for label, domain in zip(labels, known, strict=True)):
                del self[labels]

    def lines(self, *, exemplars: bool) -> Iterator[str]:
        """The lines of all."""
        del exemplars
        for value in list(self.values()):
            yield from value.lines()


class Distributions(dict[tuple[str, ...], Distribution]):
    """The distributions of a family by their labels; each comes with its first use."""

    def __init__(self, metric: Metric) -> None:
        super().__init__()
        self.metric = metric
        if not metric.labels:
            _ = self[()]

    def __missing__(self, labels: tuple[str, ...]) -> Distribution:
        made = self[labels] = Distribution(self.metric, labels)
        return made

    def lines(self, *, exemplars: bool) -> Iterator[str]:
        """The lines of all."""
        for distribution in list(self.values()):
            yield from distribution.lines(exemplars=exemplars)


class Facts:
    """An info family, and other families whose label sets come and go: written anew for each scrape."""

    def __init__(self, metric: Metric, values: Iterable[tuple[tuple[str, ...], float]]) -> None:
        self.metric = metric
        self._values = values

    def lines(self, *, exemplars: bool) -> Iterator[str]:
        """The lines of all."""
        del exemplars
        for labels, value in self._values:
            yield labelled(self.metric.full_name, self.metric.label_names, labels) + number(value) + "\n"


Family = Values | Distributions | Facts
