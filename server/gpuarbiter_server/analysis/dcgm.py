"""What the DCGM exporter calls things, and how its series become windows of GPUs.

Law: pure. One GPU is one UUID (and instance), whatever pods have had it; who has it is who had it last.
Names and units: github.com/NVIDIA/dcgm-exporter, etc/default-counters.csv. Framebuffer is in MiB, clocks are in MHz.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gpuarbiter_server.analysis.model import GpuWindow, Holder, Sample

_MIB = 1024.0**2
# By the name behind DCGM_FI_DEV_: the figure of a sample, and the factor to our unit.
_FIGURES = {
    "GPU_UTIL": ("utilization", 0.01),
    "MEM_COPY_UTIL": ("memory_bandwidth", 0.01),
    "FB_USED": ("memory_used_bytes", _MIB),
    "POWER_USAGE": ("power_watts", 1.0),
    "SM_CLOCK": ("sm_clock_hertz", 1e6),
}
# What shares are taken of: used and free memory are the total; the limit is no counter that the exporter has by itself.
_FREE, _LIMIT = "FB_FREE", "POWER_MGMT_LIMIT"
METRICS = (*_FIGURES, _FREE, _LIMIT)
PREFIX = "DCGM_FI_DEV_"


class Series(NamedTuple):
    """A series of a range query: its labels, and values by time (seconds since 1970)."""

    labels: Mapping[str, str]
    values: Mapping[float, float]


@dataclass(slots=True)
class _Gpu:
    """What is found of one GPU."""

    gpu_id: str
    hostname: str
    model_name: str
    # By metric and time.
    values: dict[str, dict[float, float]] = field(default_factory=dict)
    # By namespace and pod: the first and the last time that it had the GPU.
    pods: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)

    def add(self, metric: str, series: Series) -> None:
        self.values.setdefault(metric, {}).update(series.values)
        pod = _label(series.labels, "namespace"), _label(series.labels, "pod")
        if any(pod):
            first, last = self.pods.get(pod, (min(series.values), max(series.values)))
            self.pods[pod] = min(first, *series.values), max(last, *series.values)

    def window(self, steps: int, step: float) -> GpuWindow:
        times = sorted({time for name in _FIGURES for time in self.values.get(name, ())})
        used, free = self.values.get("FB_USED"), self.values.get(_FREE)
        total = used[max(used)] + free[max(free)] if used and free else None
        limits = self.values.get(_LIMIT)
        return GpuWindow(
            gpu_id=self.gpu_id,
            hostname=self.hostname,
            model_name=self.model_name,
            samples=tuple(self._sample(time) for time in times),
            steps=steps,
            step=step,
            memory_total_bytes=None if total is None else total * _MIB,
            power_limit_watts=limits[max(limits)] if limits else None,
            holders=self._holders(step),
        )

    def _sample(self, time: float) -> Sample:
        figures: dict[str, Any] = {}
        for name, (figure, factor) in _FIGURES.items():
            value = self.values.get(name, {}).get(time)
            figures[figure] = None if value is None else value * factor
        return Sample(**figures)

    def _holders(self, step: float) -> tuple[Holder, ...]:
        """Who had it at the end, the longest first."""
        end = max((last for _, last in self.pods.values()), default=0.0)
        now = [
            Holder(namespace, pod, held=last - first + step)
            for (namespace, pod), (first, last) in self.pods.items()
            if last == end
        ]
        return tuple(sorted(now, key=lambda holder: -(holder.held or 0.0)))


def windows(found: Mapping[str, Iterable[Series]], *, steps: int, step: float) -> list[GpuWindow]:
    """The GPUs that have any of these metrics, by hostname and id. step: seconds."""
    gpus: dict[tuple[str, str], _Gpu] = {}
    for metric, every in found.items():
        for series in every:
            if series.values:
                labels = series.labels
                key = labels.get("Hostname", ""), _gpu_id(labels)
                gpu = gpus.get(key) or gpus.setdefault(key, _Gpu(key[1], key[0], labels.get("modelName", "")))
                gpu.add(metric, series)
    made = (gpus[key].window(steps, step) for key in sorted(gpus))
    return [gpu for gpu in made if gpu.samples]


def _gpu_id(labels: Mapping[str, str]) -> str:
    """The UUID where there is one, with the instance behind it."""
    name = labels.get("UUID") or f"{labels.get('Hostname', '')}/{labels.get('gpu', '')}"
    instance = labels.get("GPU_I_ID", "")
    return f"{name}/{instance}" if instance else name


def _label(labels: Mapping[str, str], name: str) -> str:
    """Prometheus puts `exported_` before what the target itself has said, unless it is told to honor that."""
    return labels.get(f"exported_{name}") or labels.get(name, "")
