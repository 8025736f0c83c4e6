"""Who looks on: history, traces, metrics and logs, in this order, and what they need of the rest."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpuarbiter_server.config import Config
from gpuarbiter_server.config.sections import PolicySection
from gpuarbiter_server.core.model import GpuSpec
from gpuarbiter_server.runtime.about import About
from gpuarbiter_server.runtime.clock import monotonic, wall
from gpuarbiter_server.runtime.runtime import Observer
from gpuarbiter_server.runtime.threads import within
from gpuarbiter_server.store.history import History
from gpuarbiter_server.telemetry import logs, otlp
from gpuarbiter_server.telemetry.log_writer import LogWriter
from gpuarbiter_server.telemetry.metrics import Metrics
from gpuarbiter_server.telemetry.sources import Known, TaskType

if TYPE_CHECKING:
    from gpuarbiter_server.telemetry.export import Export
    from gpuarbiter_server.telemetry.tracing import Traces

log = logging.getLogger(__name__)

_LAG_INTERVAL = 0.5
# A receiver of traces that is not there does not keep the arbiter from ending.
_LAST_EXPORT = 1.0


@dataclass(frozen=True, slots=True)
class Observing:
    """What runs beside the core."""

    history: History
    metrics: Metrics
    observers: tuple[Observer, ...]
    spans_dropped: Callable[[], int]


def observe(
    config: Config,
    specs: Iterable[GpuSpec],
    about: About,
    history_file: Path | None,
    log_writer: LogWriter,
    stack: contextlib.AsyncExitStack,
) -> Observing:
    """Builds and starts everything that observes."""
    specs = list(specs)
    history = History(
        history_file,
        max_events=config.history.max_events,
        max_age=config.history.max_age,
        max_bytes=config.history.max_bytes,
        wall=wall,
    )
    history.start()
    stack.push_async_callback(history.close)
    tracing = _tracing(specs, about) if otlp.wanted() else None
    if tracing is None:
        metrics = Metrics(known(config, specs), monotonic)
        return Observing(history, metrics, (history, metrics, logs.EventLog(log_writer)), lambda: 0)
    export, traces = tracing
    stack.push_async_callback(_close, export.close)
    metrics = Metrics(known(config, specs), monotonic, lambda: traces.current)
    observers = (history, traces, metrics, logs.EventLog(log_writer, lambda: traces.current))
    return Observing(history, metrics, observers, export.dropped)


def _tracing(specs: Iterable[GpuSpec], about: About) -> "tuple[Export, Traces] | None":
    """What makes spans and exports them; None where OpenTelemetry does not take what the environment says."""
    # OpenTelemetry takes a third of a second to import: only those pay who have use for it.
    from gpuarbiter_server.telemetry.export import Export
    from gpuarbiter_server.telemetry.tracing import Traces

    try:
        export = Export(about.version, about.instance_id)
        return export, Traces(export.provider, {spec.key: spec.uuid for spec in specs}, time.time_ns)
    except Exception as error:  # noqa: BLE001 -- whatever it is, leases are granted without traces
        log.error("no traces: OpenTelemetry does not take what an OTEL_ variable says: %s", error)  # noqa: TRY400
        return None


def known(config: Config, specs: Iterable[GpuSpec]) -> Known:
    """What the labels of metrics can be under this configuration."""
    return Known(
        tuple(spec.key for spec in specs),
        {name: _shown(config.policy(name)) for name in config.policies},
        _shown(config.defaults),
        frozenset(config.telemetry.namespaces),
        config.telemetry.lease_info,
    )


def _shown(policy: PolicySection) -> TaskType:
    return TaskType(policy.max_hold, policy.wait_objective, policy.hold_objective)


async def lag_of_the_loop(observe: Callable[[float], None]) -> None:
    """Tells twice a second how late a timer rings, in seconds."""
    clock = asyncio.get_running_loop().time
    while True:
        due = clock() + _LAG_INTERVAL
        await asyncio.sleep(_LAG_INTERVAL)
        observe(max(0.0, clock() - due))


async def _close(close: Callable[[], None]) -> None:
    with contextlib.suppress(TimeoutError):
        await within(_LAST_EXPORT, close)
