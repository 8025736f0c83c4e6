"""The node's own samples: what the sampler reads anyway, as one sample for each step of the window.

Law: memory is bounded by GPUs × steps; a reading costs a few additions. `note` is called from the sampler's threads,
everything else from one other.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from gpuarbiter_server.analysis.model import GpuWindow, Holder, Sample
from gpuarbiter_server.core.model import GpuReading, GpuSpec

# Of a sample, and of the reading that it is the mean of.
_FIGURES = {
    "utilization": "utilization_ratio",
    "memory_bandwidth": "memory_bandwidth_ratio",
    "memory_used_bytes": "memory_used_bytes",
    "power_watts": "power_watts",
    "sm_clock_hertz": "sm_clock_hertz",
}


@dataclass(slots=True)
class _Step:
    """The sums of one step of one GPU."""

    number: int
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    peak: float | None = None

    def add(self, reading: GpuReading) -> None:
        for name, source in _FIGURES.items():
            value = getattr(reading, source)
            if value is not None:
                self.sums[name] = self.sums.get(name, 0.0) + value
                self.counts[name] = self.counts.get(name, 0) + 1
        if reading.utilization_ratio is not None:
            self.peak = max(self.peak or 0.0, reading.utilization_ratio)

    def sample(self) -> Sample:
        return Sample(**{name: total / self.counts[name] for name, total in self.sums.items()}, peak=self.peak)


class OwnSamples:
    """A source: the GPUs of this machine.

    window, step: seconds. clock: as that of the readings. holders: who has each GPU now, by its key.
    """

    name = "own samples"

    def __init__(
        self,
        specs: Iterable[GpuSpec],
        *,
        window: float,
        step: float,
        clock: Callable[[], float],
        hostname: str,
        holders: Callable[[], Mapping[str, tuple[Holder, ...]]],
    ) -> None:
        self._specs = tuple(specs)
        self._step = step
        self._steps = max(1, round(window / step))
        self._clock = clock
        self._hostname = hostname
        self._holders = holders
        self._lock = threading.Lock()
        self._power_limits: dict[str, float] = {}
        # One more than the window has: the one that is filled now does not push out the oldest.
        self._taken: dict[str, deque[_Step]] = {spec.key: deque(maxlen=self._steps + 1) for spec in self._specs}

    def note(self, key: str, reading: GpuReading) -> None:
        """A GPU was read. Safe from any thread."""
        number = int(reading.time / self._step)
        with self._lock:
            taken = self._taken[key]
            if not taken or taken[-1].number != number:
                taken.append(_Step(number))
            taken[-1].add(reading)
            if reading.power_limit_watts is not None:
                self._power_limits[key] = reading.power_limit_watts

    async def windows(self) -> list[GpuWindow]:
        """What was seen of each GPU that was read within the window."""
        holders = self._holders()
        since = int(self._clock() / self._step) - self._steps
        with self._lock:
            samples = {
                key: tuple(step.sample() for step in taken if step.number > since) for key, taken in self._taken.items()
            }
            limits = dict(self._power_limits)
        return [
            GpuWindow(
                gpu_id=spec.key,
                hostname=self._hostname,
                model_name=spec.name,
                samples=samples[spec.key],
                steps=self._steps,
                step=self._step,
                memory_total_bytes=spec.total_bytes,
                power_limit_watts=limits.get(spec.key),
                holders=holders.get(spec.key, ()),
            )
            for spec in self._specs
            if samples[spec.key]
        ]

    async def close(self) -> None:
        """Nothing is open."""
