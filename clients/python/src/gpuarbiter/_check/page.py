"""A page of metrics as data, in the one or the other format.

Law: prometheus_client reads it; it is met here alone, and only once a command looks at a page.
"""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.samples import Sample

PREFIX = "gpu_arbiter_"
# What the parsers raise about text that is none of theirs.
_UNREADABLE = (ValueError, IndexError, KeyError, TypeError, AttributeError)


class Unreadable(Exception):  # noqa: N818 -- it names what the page is
    """It is no page of metrics; the text says why."""


class Page:
    """The families of a page.

    Raises:
        Unreadable: it cannot be parsed.
    """

    def __init__(self, body: bytes, *, openmetrics: bool = False) -> None:
        self.families = tuple(_parsed(body, openmetrics=openmetrics))

    @property
    def samples(self) -> "Iterable[Sample]":
        """Every sample line."""
        return (sample for family in self.families for sample in family.samples)

    def total(self, name: str, **labels: str) -> float | None:
        """The sum of a name's series that have these labels; None: there is no such series."""
        found = [
            sample.value
            for sample in self.samples
            if sample.name == PREFIX + name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None

    def above_zero(self, name: str) -> list[str]:
        """A name's series that are above 0."""
        return [series(sample) for sample in self.samples if sample.name == PREFIX + name and sample.value > 0]

    def without_help_or_type(self) -> list[str]:
        """The names whose sample lines lack a HELP or a TYPE."""
        return sorted(
            {
                sample.name
                for family in self.families
                for sample in family.samples
                if not family.documentation or family.type == "unknown"
            }
        )

    def twice(self) -> list[str]:
        """The series that are there more than once."""
        return [name for name, times in Counter(map(series, self.samples)).items() if times > 1]


def series(sample: "Sample") -> str:
    """A series as people write it, its labels in the order of their names."""
    labels = ",".join(f"{name}={value!r}" for name, value in sorted(sample.labels.items()))
    return f"{sample.name}{{{labels}}}" if labels else sample.name


def _parsed(body: bytes, *, openmetrics: bool) -> "list[Metric]":
    from prometheus_client import parser
    from prometheus_client.openmetrics import parser as openmetrics_parser

    parse: Any = openmetrics_parser if openmetrics else parser
    try:
        return list(parse.text_string_to_metric_families(body.decode()))
    except _UNREADABLE as error:
        raise Unreadable(str(error) or type(error).__name__) from None
