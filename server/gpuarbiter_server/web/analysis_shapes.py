"""What the analysis answers over HTTP: every shape once, for the answers and for /openapi.json.

Utilization and memory traffic are percent, memory is MiB, power is watts, clocks are MHz, scores are 0 to 100; null is
what is not known.
"""

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, Field

from gpuarbiter_server.analysis.model import Result
from gpuarbiter_server.analysis.opinions import Opinions
from gpuarbiter_server.analysis.service import Analysis, Run
from gpuarbiter_server.analysis.statistics import low, statistics


class Features(BaseModel):
    """What is there and on."""

    ai_analysis: bool
    prometheus_metrics: bool
    control_api: bool


class Summary(BaseModel):
    """The settings that people ask for first."""

    prometheus_url: str = Field(description="Empty: the node's own samples.")
    threshold: float = Field(description="Below this score a GPU is low.")
    interval: float = Field(description="Seconds from one run to the next.")


class Root(BaseModel):
    """What this is."""

    service: str
    version: str
    features: Features
    config: Summary


class Health(BaseModel):
    """Whether there are results, and how fresh they are."""

    status: str = Field(description="starting: no run yet; failing: none went well yet; healthy; stale: too old.")
    source: str
    prometheus_connected: bool
    last_analysis: datetime | None
    stale: bool
    error: str = Field(description="Why the last run failed; empty: it did not.")
    analysis_timeout: float = Field(description="Seconds after which a run is given up.")
    ai_enabled: bool = Field(description="Whether a model judges beside the rules.")
    ai_error: str = Field(description="Why the model gave no answer the last time; empty: it did, or is not asked.")
    interval: float


class Asked(BaseModel):
    """What became of asking for a run."""

    status: str = Field(description="ok, running or failed.")
    message: str


class JudgementShape(BaseModel):
    """What is to be thought of a GPU."""

    source: str = Field(description="model: by the model that was asked; rules: by the built-in rules.")
    status: str = Field(description="active, idle or suspicious.")
    confidence: float = Field(ge=0, le=1)
    reason: str
    recommendation: str
    ai_adjusted_score: float


class GpuResult(BaseModel):
    """A GPU over the window."""

    gpu_id: str
    pod: str
    namespace: str
    client_id: str = Field(description="How the holder calls itself to the arbiter; empty where no lease is known.")
    hostname: str
    model_name: str
    gpu_util: float | None
    mem_copy: float | None
    mem_used_mb: float | None
    power_usage: float | None
    sm_clock: float | None
    score: float
    status: str = Field(description="idle, low, normal or high.")
    timestamp: datetime
    ai_analysis: JudgementShape | None


class LowResults(BaseModel):
    """The GPUs below the threshold, the lowest first."""

    count: int
    threshold: float
    gpus: list[GpuResult]


class NamespaceShape(BaseModel):
    """The GPUs that one namespace has."""

    count: int
    avg_score: float
    low_util_count: int


class StatisticsShape(BaseModel):
    """What the results come to."""

    total_gpus: int
    avg_score: float | None
    min_score: float | None
    max_score: float | None
    low_utilization_count: int
    idle_count: int
    by_status: dict[str, int]
    by_namespace: dict[str, NamespaceShape] = Field(description="The empty name: nobody's, or not known.")


class Updated(BaseModel):
    """What a change came to."""

    status: str = Field(description="ok.")
    config: dict[str, Any] = Field(description="The settings of the analysis now.")
    restart_needed: list[str] = Field(description="Changed keys that take effect at the next start of the arbiter.")


def health(analysis: Analysis, opinions: Opinions, *, prometheus: bool) -> Health:
    """How it is."""
    latest = analysis.latest
    return Health(
        status=_status(analysis),
        source=analysis.source.name,
        prometheus_connected=prometheus and latest is not None and not analysis.fault,
        last_analysis=_moment(latest.at) if latest else None,
        stale=analysis.stale,
        error=analysis.fault,
        analysis_timeout=analysis.settings.timeout,
        ai_enabled=opinions.enabled,
        ai_error=opinions.trouble,
        interval=analysis.settings.interval,
    )


def results(run: Run | None) -> list[GpuResult]:
    """Every GPU of a run."""
    return [_gpu(each, run.at) for each in run.results] if run else []


def low_results(analysis: Analysis) -> LowResults:
    """Of the last run."""
    run = analysis.latest
    found = low(run.results, run.thresholds) if run else []
    threshold = run.thresholds.low if run else analysis.settings.thresholds.low
    return LowResults(count=len(found), threshold=threshold, gpus=[_gpu(each, run.at) for each in found] if run else [])


def stats(analysis: Analysis) -> StatisticsShape:
    """Of the last run."""
    run = analysis.latest
    figures = statistics(run.results if run else (), run.thresholds if run else analysis.settings.thresholds)
    return StatisticsShape.model_validate(
        {
            **{name: _rounded(getattr(figures, name)) for name in ("avg_score", "min_score", "max_score")},
            **{
                name: getattr(figures, name)
                for name in ("total_gpus", "low_utilization_count", "idle_count", "by_status")
            },
            "by_namespace": {
                name: NamespaceShape(
                    count=each.count, avg_score=round(each.avg_score, 2), low_util_count=each.low_util_count
                )
                for name, each in figures.by_namespace.items()
            },
        }
    )


def _status(analysis: Analysis) -> str:
    if analysis.latest is None:
        return "failing" if analysis.fault else "starting"
    return "stale" if analysis.stale else "healthy"


def _gpu(result: Result, at: float) -> GpuResult:
    means, judged = result.means, result.shown
    return GpuResult(
        gpu_id=result.gpu.gpu_id,
        pod=result.holder.pod,
        namespace=result.holder.namespace,
        client_id=result.holder.client_id,
        hostname=result.gpu.hostname,
        model_name=result.gpu.model_name,
        gpu_util=_rounded(means.utilization, 100),
        mem_copy=_rounded(means.memory_bandwidth, 100),
        mem_used_mb=_rounded(means.memory_used_bytes, 1 / 2**20),
        power_usage=_rounded(means.power_watts),
        sm_clock=_rounded(means.sm_clock_hertz, 1e-6),
        score=round(result.score, 2),
        status=result.status.value,
        timestamp=_moment(at),
        ai_analysis=JudgementShape(
            source="rules" if result.opinion is None else "model",
            status=judged.verdict.value,
            confidence=judged.confidence,
            reason=judged.reason,
            recommendation=judged.recommendation,
            ai_adjusted_score=round(judged.adjusted_score, 2),
        ),
    )


def _rounded(value: float | None, factor: float = 1.0) -> Any:
    return None if value is None else round(value * factor, 2)


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
