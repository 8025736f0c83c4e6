"""What a dashboard is, before it is Grafana's JSON or a page of the documentation."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from tools.dashboards.queries import Expr, check_legend

# Grafana's names of units.
SECONDS, BYTES, RATIO, COUNT, PER_SECOND = "s", "bytes", "percentunit", "short", "cps"
WATTS, HERTZ, CELSIUS, NONE = "watt", "hertz", "celsius", "none"

GREEN, ORANGE, RED, BLUE, GREY = "green", "orange", "red", "blue", "text"
# A colour, and from which value on it holds; the first holds from the start.
Steps = tuple[tuple[str, float | None], ...]

WIDTH = 24


def steps(warning: float, critical: float) -> Steps:
    """Green, then orange, then red."""
    return (GREEN, None), (ORANGE, warning), (RED, critical)


# Red as soon as there is one.
NONE_IS_GOOD: Steps = ((GREEN, None), (RED, 1))
PLAIN: Steps = ((BLUE, None),)


@dataclass(frozen=True, slots=True)
class Query:
    """A query of a panel, and what its series are called."""

    expr: Expr
    legend: str
    # Another unit than the panel's, on an axis at the right.
    second_axis: str = ""
    # A limit that others are held against: dashed, and not stacked on them.
    limit: bool = False
    # Of a table: the unit of its column.
    unit: str = ""

    def __post_init__(self) -> None:
        check_legend(self.expr, self.legend)


@dataclass(frozen=True, slots=True)
class Stat:
    """The figure of now, large, or with its trend; words: what is shown in place of a value, and its colour.

    A trend is for what is there all the time: it ends in the last value that there was, however long ago.
    """

    thresholds: Steps = PLAIN
    trend: bool = False
    words: tuple[tuple[int, str, str], ...] = ()
    no_value: str = ""


@dataclass(frozen=True, slots=True)
class Gauge:
    """One figure on a dial."""

    thresholds: Steps
    most: float = 1.0


@dataclass(frozen=True, slots=True)
class Lines:
    """Values over time; lines are drawn at the thresholds, where there are any."""

    stacked: bool = False
    # For what happens now and then: each time a bar of its own.
    bars: bool = False
    # For times between milliseconds and minutes in one graph.
    logarithmic: bool = False
    thresholds: Steps = ()
    most: float | None = None
    # What the legend says of each series; it is sorted by the first.
    figures: tuple[str, ...] = ("lastNotNull", "max")


@dataclass(frozen=True, slots=True)
class Bars:
    """A bar for each."""


@dataclass(frozen=True, slots=True)
class Pie:
    """Shares of a whole."""


@dataclass(frozen=True, slots=True)
class Table:
    """A row for each label set, a column for each label and each query that has a legend; those named come first."""

    first: tuple[str, ...] = ()


Look = Stat | Gauge | Lines | Bars | Pie | Table


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel: what it means, what to do about it, what it asks, and how it looks."""

    title: str
    means: str
    todo: str
    unit: str
    queries: tuple[Query, ...]
    look: Look = field(default_factory=Lines)
    width: int = 8
    height: int = 8
    # A variable for each of whose values the panel is there once.
    repeat: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A heading, and the panels below it."""

    title: str
    panels: tuple[Panel, ...]

    def __post_init__(self) -> None:
        # Lines of panels that are full and of one height: Grafana would shift others about.
        filled, height = 0, 0
        for panel in self.panels:
            if filled and panel.height != height:
                raise ValueError(f"{self.title}: {panel.title} is not as high as those beside it")
            filled, height = filled + panel.width, panel.height
            if filled > WIDTH:
                raise ValueError(f"{self.title}: {panel.title} does not fit into its line")
            filled %= WIDTH
        if filled:
            raise ValueError(f"{self.title}: the last line is not full")


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard; the uid is its address, and never changes."""

    uid: str
    title: str
    question: str
    rows: tuple[Row, ...]

    @property
    def panels(self) -> Iterator[Panel]:
        """All of them."""
        for row in self.rows:
            yield from row.panels
