"""The reference of the metrics, generated from their catalogue; the prose around it is in metrics_prose."""

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import NamedTuple

from gpuarbiter_server.config import Config
from gpuarbiter_server.config.keys import Key, all_keys, value_at
from gpuarbiter_server.telemetry import catalogue as cat
from tools.metrics_prose import FREE, PAGE, QUERIES

_PATH = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"
# By the end of the name; what ends in none of them is a count.
_UNITS = {
    "timestamp_seconds": "seconds since 1970",
    "seconds": "seconds",
    "bytes": "bytes",
    "ratio": "0 to 1",
    "watts": "watts",
    "celsius": "°C",
    "hertz": "hertz",
}
_SETTINGS = (("telemetry",), ("listen", "http"), ("defaults", "wait_objective"), ("defaults", "hold_objective"))
# Of a histogram, beside its buckets: +Inf, _count and _sum.
_MORE_LINES = 3


class Site(NamedTuple):
    """How many values its labels have; tasks and namespaces with "other", tasks with RUN, too."""

    gpus: int
    tasks: int
    namespaces: int = 1


SMALL, LARGE = Site(gpus=1, tasks=5), Site(gpus=8, tasks=22)


def metrics_reference() -> dict[Path, str]:
    """docs/metrics.md."""
    page = PAGE.format(
        families=len(cat.CATALOGUE),
        sections="\n".join(_sections()),
        older="".join(_older()),
        settings="".join(_settings()),
        labels="".join(_shared_labels()),
        free="".join(_free_labels()),
        small=f"{lines_at_most(SMALL):,}",
        large=f"{lines_at_most(LARGE):,}",
        series="".join(_largest()),
        queries=QUERIES,
    )
    return {_PATH: page}


def lines_at_most(site: Site) -> int:
    """Sample lines of a page whose every label set is there, without the families that something else bounds."""
    return sum(count(metric, site) for metric in cat.CATALOGUE if is_bounded(metric))


def is_bounded(metric: cat.Metric) -> bool:
    """Whether the GPUs, the configuration and fixed lists say how many series it can have."""
    return all(label.values is not cat.Values.FREE for label in metric.labels)


def count(metric: cat.Metric, site: Site) -> int:
    """How many sample lines it can have there."""
    sizes = {
        cat.Values.GPUS: site.gpus,
        cat.Values.GPUS_OR_ANY: site.gpus + 1,
        cat.Values.TASKS: site.tasks,
        cat.Values.NAMESPACES: site.namespaces,
    }
    each = prod(len(v) if isinstance(v := label.values, tuple) else sizes[v] for label in metric.labels)
    return each * (len(metric.buckets) + _MORE_LINES if metric.buckets else 1)


def formula(metric: cat.Metric) -> str:
    """The same as people write it."""
    names = {
        cat.Values.GPUS: "GPUs",
        cat.Values.GPUS_OR_ANY: "(GPUs + 1)",
        cat.Values.TASKS: "tasks",
        cat.Values.NAMESPACES: "namespaces",
    }
    parts = [str(len(v)) if isinstance(v := label.values, tuple) else names[v] for label in metric.labels]
    return " × ".join([*parts, str(len(metric.buckets) + _MORE_LINES)] if metric.buckets else parts)


def _largest() -> Iterator[str]:
    """The families that make most of a large page."""
    bounded = sorted(filter(is_bounded, cat.CATALOGUE), key=lambda metric: -count(metric, LARGE))
    for metric in bounded[:6]:
        yield f"| `{metric.full_name}` | {formula(metric)} | {count(metric, LARGE):,} |\n"


def _sections() -> Iterator[str]:
    for title, metrics in _by_section().items():
        yield f"### {title}\n\n| Name | Type | Unit | Labels | What it says |\n|---|---|---|---|---|"
        yield from (_row(metric) for metric in metrics)
        buckets = [metric for metric in metrics if metric.buckets]
        if buckets:
            yield ""
            yield from (f"- Buckets of `{metric.full_name}`: {_bounds(metric)}." for metric in buckets)
        yield ""


def _by_section() -> dict[str, list[cat.Metric]]:
    found: dict[str, list[cat.Metric]] = {}
    for metric in cat.CATALOGUE:
        if metric in cat.SECTIONS:
            title = cat.SECTIONS[metric]
            found[title] = []
        found[title].append(metric)
    return found


def _row(metric: cat.Metric) -> str:
    labels = ", ".join(map(_label, metric.labels)) or "none"
    return f"| `{metric.full_name}` | {metric.kind} | {_unit(metric)} | {labels} | {metric.help} |"


def _unit(metric: cat.Metric) -> str:
    if metric.kind == "info":
        return "always 1"
    if metric.help.startswith("1 w"):  # 1 when, 1 while
        return "0 or 1"
    return next((unit for end, unit in _UNITS.items() if metric.name.endswith(f"_{end}")), "count")


def _label(label: cat.Label) -> str:
    if not isinstance(label.values, tuple):
        return f"`{label.name}`"
    values = ", ".join(label.values)
    return f"`{label.name}` ({values})"


def _bounds(metric: cat.Metric) -> str:
    if metric.name.endswith("_bytes"):
        return ", ".join(f"{bound / 2**30:g}" for bound in metric.buckets) + " GiB"
    return ", ".join(f"{bound:g}" for bound in metric.buckets)


def _older() -> Iterator[str]:
    """One row for each older name, in their order."""
    rows = [(older, metric.full_name) for metric in cat.CATALOGUE for older in metric.formerly]
    for older, name in sorted(rows, key=lambda row: row[0].lower()):
        yield f"| {older} | `{name}` |\n"


def _settings() -> Iterator[str]:
    config = Config().file_form()
    for key in all_keys():
        if any(key.path[: len(start)] == start for start in _SETTINGS):
            yield _setting(key, value_at(config, key.path))


def _setting(key: Key, default: object) -> str:
    text = str(default).lower() if isinstance(default, bool) else str(default)
    return f"| `{'.'.join(key.path)}` | `{text}` | {key.what} |\n"


def _shared_labels() -> Iterator[str]:
    """One row for each label whose values the machine or the configuration bounds."""
    wider = ", ".join(f"`{m.full_name}`" for m in cat.CATALOGUE if any(map(_may_be_any, m.labels)))
    for values in cat.Values:
        name = next(label.name for m in cat.CATALOGUE for label in m.labels if label.values is values)
        if values is not cat.Values.FREE:
            where = f" of {wider}" if values is cat.Values.GPUS_OR_ANY else ""
            yield f"| `{name}`{where} | {values.value} |\n"


def _may_be_any(label: cat.Label) -> bool:
    return label.values is cat.Values.GPUS_OR_ANY


def _free_labels() -> Iterator[str]:
    """One row for each family that something else bounds."""
    for metric in cat.CATALOGUE:
        if not is_bounded(metric):
            yield f"| `{metric.full_name}` | {FREE[metric.name]} |\n"
