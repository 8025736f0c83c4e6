"""How families become a page: the classic text format, or OpenMetrics, which has exemplars.

Formats: prometheus.io/docs/instrumenting/exposition_formats (0.0.4), and OpenMetrics 1.0.0.
"""

from collections.abc import Iterable, Iterator
from time import perf_counter

from gpuarbiter_server.telemetry.series import Family

CLASSIC = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

# A page is handed out in parts, so that a long one does not hold the interpreter: of so many characters (a line has
# about 90, and takes about a third of a microsecond, ten times that where it has to be made anew), and after a family
# that took so long.
_PART = 40_000
_PART_SECONDS = 0.0003


def content_type(accept: str) -> str:
    """The format for this Accept header: OpenMetrics for who names it at least as gladly as plain text."""
    wanted = {"application/openmetrics-text": -1.0, "text/plain": 0.0}
    for item in accept.split(","):
        kind, *parameters = (part.strip() for part in item.lower().split(";"))
        if kind in wanted:
            wanted[kind] = max(wanted[kind], _weight(parameters))
    openmetrics = wanted["application/openmetrics-text"]
    return OPENMETRICS if openmetrics > 0 and openmetrics >= wanted["text/plain"] else CLASSIC


def parts(families: Iterable[Family], *, openmetrics: bool) -> Iterator[bytes]:
    """The page in parts, each made when it is asked for."""
    lines: list[str] = []
    length, began = 0, perf_counter()
    for family in families:
        metric = family.metric
        if openmetrics:
            name, kind = metric.family_name, metric.kind
        else:
            name, kind = metric.full_name, "gauge" if metric.kind == "info" else metric.kind
        lines.append(f"# HELP {name} {metric.help}\n# TYPE {name} {kind}\n")
        for line in family.lines(exemplars=openmetrics):
            lines.append(line)
            length += len(line)
            if length > _PART:
                yield _encoded(lines)
                lines, length, began = [], 0, perf_counter()
        if perf_counter() - began > _PART_SECONDS:
            yield _encoded(lines)
            lines, length, began = [], 0, perf_counter()
    if openmetrics:
        lines.append("# EOF\n")
    yield _encoded(lines)


def _encoded(lines: Iterable[str]) -> bytes:
    """Half a character (a surrogate) cannot be encoded, and must not cost the whole page."""
    return "".join(lines).encode(errors="replace")


def _weight(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
