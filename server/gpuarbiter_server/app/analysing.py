"""The utilization analysis: from what it is told, and what it tells of."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from starlette.types import ASGIApp

from gpuarbiter_server import __version__
from gpuarbiter_server.analysis.model import Holder, Language, Thresholds, Weights
from gpuarbiter_server.analysis.opinions import Opinions
from gpuarbiter_server.analysis.own import OwnSamples
from gpuarbiter_server.analysis.service import Analysis, Settings
from gpuarbiter_server.analysis.sources import Source
from gpuarbiter_server.app import judging
from gpuarbiter_server.app.acting import Acting, Ask
from gpuarbiter_server.config import Config
from gpuarbiter_server.config.analysis import AnalysisSection
from gpuarbiter_server.config.masks import without_password
from gpuarbiter_server.core.census import Census
from gpuarbiter_server.core.events import ReadingTaken
from gpuarbiter_server.core.model import GpuSpec
from gpuarbiter_server.gpu.sampler import SamplerEvent
from gpuarbiter_server.runtime.clock import monotonic, wall
from gpuarbiter_server.runtime.live_config import LiveConfig
from gpuarbiter_server.telemetry.metrics import Metrics
from gpuarbiter_server.telemetry.sources import Analysed
from gpuarbiter_server.web.guard import Guard
from gpuarbiter_server.web.late import Late

# Leases that are looked through for the holders of the GPUs.
_MOST_LEASES = 10_000


class Analysing:
    """The analysis where it is on, and its stand-in where it is off."""

    def __init__(
        self,
        config: Config,
        specs: Iterable[GpuSpec],
        census: Callable[[], Census],
        metrics: Metrics,
        ask: Ask,
    ) -> None:
        section = config.analysis
        self.service: Analysis | None = None
        self._own: OwnSamples | None = None
        self._opinions: Opinions = judging.opinions(section, count=metrics.model_asked)
        self._acting: Acting | None = None
        if not section.enabled:
            return
        source: Source
        if section.prometheus.url:
            source, first = _prometheus(section), 0.0
        else:
            # Before that there is not even one whole step.
            first = min(section.interval, section.step)
            source = self._own = OwnSamples(
                specs,
                window=section.time_window,
                step=section.step,
                clock=monotonic,
                hostname=config.node_name(),
                holders=lambda: holders(census()),
            )
        self._acting = Acting(config, ask, metrics.analysis_acted, config.journal.directory())
        self.service = Analysis(
            source,
            settings(config),
            history=section.history,
            first=first,
            clock=monotonic,
            wall=wall,
            observe=metrics.analysis_ran,
            advise=self._opinions.advise,
            on_run=self._acting.on_run,
        )

    def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Runs from now on."""
        if self._acting is not None:
            self._acting.start(stack)
        if self.service is not None:
            task = asyncio.ensure_future(self.service.run_forever())
            stack.push_async_callback(self._opinions.close)
            stack.push_async_callback(self.service.close)
            stack.callback(task.cancel)

    def listen(self, deliver: Callable[[SamplerEvent], None]) -> Callable[[SamplerEvent], None]:
        """The same, and readings are noted here as well; from the sampler's threads."""
        own = self._own
        if own is None:
            return deliver

        def both(event: SamplerEvent) -> None:
            deliver(event)
            if isinstance(event, ReadingTaken):
                own.note(event.gpu, event.reading)

        return both

    def configure(self, config: Config) -> None:
        """What can change while it runs."""
        if self.service is not None:
            self.service.configure(settings(config))
            self._opinions.configure(judging.model_settings(config.analysis))
        if self._acting is not None:
            self._acting.configure(config)

    def application(self, live_config: LiveConfig, guard: Guard) -> Late | None:
        """What answers its routes; None: they are not there."""
        service = self.service
        if service is None:
            return None

        at_start = live_config.config

        def shown() -> dict[str, Any]:
            return live_config.config.analysis.shown()

        async def update(patch: Mapping[str, Any]) -> list[str]:
            # JSON is YAML.
            done = await live_config.update(json.dumps({"analysis": patch}), revision=None, dry_run=False)
            return [key for key in done.restart_needed if key.startswith("analysis.")]

        def made() -> ASGIApp:
            from gpuarbiter_server.web import analysis_api

            return analysis_api.make(
                service,
                self._opinions,
                version=__version__,
                config=shown,
                update=update,
                guard=guard,
                prometheus_url=without_password(at_start.analysis.prometheus.url),
                metrics=at_start.telemetry.metrics,
                control=at_start.analysis.control.enabled,
            )

        return Late(made)

    def shown(self) -> Iterator[Analysed]:
        """The last results, for metrics; none that are stale."""
        if self.service is None or self.service.latest is None or self.service.stale:
            return
        for each in self.service.latest.results:
            yield Analysed(
                each.gpu.gpu_id,
                each.holder.namespace,
                each.holder.pod,
                each.score,
                each.status.value,
                each.shown.verdict.value,
                each.shown.confidence,
                each.shown.adjusted_score,
            )


def _prometheus(section: AnalysisSection) -> Source:
    """Imported here: httpx takes its time, and few have use for it."""
    from gpuarbiter_server.analysis.prometheus import Prometheus

    window, step = section.prometheus_span()
    return Prometheus(
        section.prometheus.url,
        selector=section.prometheus.selector,
        window=window,
        step=step,
        timeout=section.prometheus.timeout,
        max_workers=section.max_workers,
        wall=wall,
    )


def settings(config: Config) -> Settings:
    """What the analysis goes by under this configuration."""
    section = config.analysis
    return Settings(
        interval=section.interval,
        timeout=section.timeout,
        weights=Weights(**section.weights.model_dump()),
        thresholds=Thresholds(**section.thresholds.model_dump()),
        language=Language(section.language),
    )


def holders(census: Census) -> Mapping[str, tuple[Holder, ...]]:
    """Who has each GPU now, by its key; who has it longest comes first."""
    found: dict[str, tuple[Holder, ...]] = {}
    for lease in sorted(census.lease_views(_MOST_LEASES), key=lambda lease: lease.granted_at):
        held = census.now - lease.granted_at
        holder = Holder(
            lease.holder.namespace, lease.holder.pod, lease.lease_id, held, len(lease.gpus), lease.holder.client_id
        )
        for grant in lease.gpus:
            found[grant.spec.key] = (*found.get(grant.spec.key, ()), holder)
    return found
