"""Pictures as SVG: small charts side by side, plain enough to be read in a diff.

A chart shows either how figures grow, with evenly spaced steps, or points over time.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _RIGHT = 420, 260, 56, 48, 44, 16
_COLOURS = ("#2563eb", "#dc2626", "#059669", "#9333ea")
_GRID = "#e5e7eb"
_STYLE = "text{font:12px sans-serif;fill:#374151}.title{font-weight:bold}.small{font-size:11px}"
_TICKS = 4
_STEP_MARGIN = 0.3
# Tops of axes whose quarters are easy to read.
_ROUND = (1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 6.0, 8.0, 10.0)


@dataclass(frozen=True)
class Chart:
    """One chart. Values go up from 0."""

    title: str
    x_title: str
    # Name of a line or of a cloud of points -> (x, y).
    series: dict[str, Sequence[tuple[float, float]]]
    # Lines: what stands below each step, whose x are 0, 1, 2 …
    steps: Sequence[str] = ()
    # Horizontal lines: name -> y.
    marks: dict[str, float] = field(default_factory=dict)
    # The greatest x and y, where several charts are to be compared; otherwise that of the values.
    x_top: float = 0.0
    y_top: float = 0.0


def draw(path: Path, charts: Sequence[Chart]) -> None:
    """Writes the charts side by side."""
    width = _WIDTH * len(charts)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT}" width="{width}" height="{_HEIGHT}">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{width}" height="{_HEIGHT}" fill="#ffffff"/>',
    ]
    for number, chart in enumerate(charts):
        lines += [f'<g transform="translate({number * _WIDTH} 0)">', *_chart(chart), "</g>"]
    path.write_text("\n".join([*lines, "</svg>"]) + "\n")


def _chart(chart: Chart) -> Iterator[str]:
    points = [point for each in chart.series.values() for point in each]
    # Steps keep away from the edges, so that there is room for their figures.
    margin = _STEP_MARGIN if chart.steps else 0.0
    x_top = chart.x_top or max(x for x, _ in points) or 1.0
    y_top = _round_above(chart.y_top or max(*(y for _, y in points), *chart.marks.values(), 1e-9))

    def at(x: float, y: float) -> tuple[float, float]:
        right, down = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
        share = (x + margin) / (x_top + 2 * margin)
        return round(_LEFT + share * right, 1), round(_TOP + (1 - min(y, y_top) / y_top) * down, 1)

    yield _text(_LEFT, 18, chart.title, "title")
    for tick in range(_TICKS + 1):
        value = y_top * tick / _TICKS
        (left, y), (right, _) = at(-margin, value), at(x_top + margin, value)
        yield f'<path d="M{left} {y}H{right}" stroke="{_GRID}"/>'
        yield _text(left - 6, y + 4, _figure(value), "small", "end")
    ends = list(enumerate(chart.steps)) or [
        (x_top * tick / _TICKS, _figure(x_top * tick / _TICKS)) for tick in range(5)
    ]
    for x, label in ends:
        yield _text(at(x, 0)[0], _HEIGHT - _BOTTOM + 16, label, "small", "middle")
    yield _text(_WIDTH / 2, _HEIGHT - 8, chart.x_title, "small", "middle")
    for number, (name, values) in enumerate(chart.series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        yield _text(_LEFT + number * 150, 36, name, "small", fill=colour)
        places = [at(x, y) for x, y in values]
        if chart.steps:
            path = "L".join(f"{x} {y}" for x, y in places)
            yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
            yield from (
                _text(x, y - 7, _figure(value), "small", "middle")
                for (x, y), (_, value) in zip(places, values, strict=True)
            )
        yield from (f'<circle cx="{x}" cy="{y}" r="2.5" fill="{colour}" fill-opacity=".6"/>' for x, y in places)
    for name, value in chart.marks.items():
        (left, y), (right, _) = at(-margin, value), at(x_top + margin, value)
        yield f'<path d="M{left} {y}H{right}" stroke="#111827" stroke-dasharray="4 3"/>'
        yield _text(right, y - 5, name, "small", "end")


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _round_above(value: float) -> float:
    """A round number with some room above the value."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(top * power for top in (*_ROUND, 12.0) if top * power >= 1.08 * value)


def _text(x: float, y: float, text: str, style: str, anchor: str = "start", fill: str = "") -> str:
    coloured = f' style="fill:{fill}"' if fill else ""
    return f'<text x="{x}" y="{y}" class="{style}" text-anchor="{anchor}"{coloured}>{escape(text)}</text>'
