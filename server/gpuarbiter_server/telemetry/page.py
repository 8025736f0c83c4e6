"""The page that a scrape gets: what was counted, and what is so now."""

from collections.abc import Iterator

from gpuarbiter_server.telemetry import exposition
from gpuarbiter_server.telemetry.gauges import Gauges
from gpuarbiter_server.telemetry.metrics import Metrics
from gpuarbiter_server.telemetry.series import Family
from gpuarbiter_server.telemetry.sources import Known


class Page:
    """Every family of the catalogue."""

    def __init__(self, metrics: Metrics, gauges: Gauges) -> None:
        self._metrics = metrics
        self._gauges = gauges

    def configure(self, known: Known) -> None:
        """What the labels can be from now on. What was counted before stays as it was."""
        self._metrics.configure(known)
        self._gauges.configure(known)

    def families(self) -> Iterator[Family]:
        """Every family, as it is now."""
        yield from self._metrics.families()
        yield from self._gauges.families()

    def __call__(self, *, openmetrics: bool = False) -> Iterator[bytes]:
        """The text in the one or the other format, in parts that are made as they are asked for."""
        return exposition.parts(self.families(), openmetrics=openmetrics)
