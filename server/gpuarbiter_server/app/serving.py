"""Builds every room, connects them, and takes them down in order."""

import asyncio
import contextlib
import gc
import logging
import secrets
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpuarbiter_server import __version__
from gpuarbiter_server.api import quiet
from gpuarbiter_server.api.admin import GpuArbiterAdminService
from gpuarbiter_server.api.calls import Intake
from gpuarbiter_server.api.convert_out import Converter
from gpuarbiter_server.api.server import GrpcServer
from gpuarbiter_server.api.service import GpuArbiterService
from gpuarbiter_server.app import gpus, holders
from gpuarbiter_server.app.analysing import Analysing
from gpuarbiter_server.app.console import Console
from gpuarbiter_server.app.keeping import Kept, keep
from gpuarbiter_server.app.listening import Addresses, take
from gpuarbiter_server.app.observing import known, lag_of_the_loop, observe
from gpuarbiter_server.app.readiness import Readiness
from gpuarbiter_server.config import Config
from gpuarbiter_server.core.arbiter import Arbiter
from gpuarbiter_server.core.effects import Recorded
from gpuarbiter_server.core.events import DriverChanged, Shutdown
from gpuarbiter_server.core.model import EventType, GpuSpec
from gpuarbiter_server.gpu.backend import GpuBackend
from gpuarbiter_server.gpu.nvml import NvmlBackend
from gpuarbiter_server.gpu.processes import ProcessWatcher
from gpuarbiter_server.gpu.sampler import Sampler
from gpuarbiter_server.runtime.about import About
from gpuarbiter_server.runtime.clock import monotonic, wall
from gpuarbiter_server.runtime.journal_writer import JournalWriter
from gpuarbiter_server.runtime.live_config import LiveConfig
from gpuarbiter_server.runtime.local_machine import LocalMachine
from gpuarbiter_server.runtime.runtime import Runtime
from gpuarbiter_server.telemetry import logs
from gpuarbiter_server.telemetry.gauges import Gauges
from gpuarbiter_server.telemetry.log_writer import LogWriter
from gpuarbiter_server.telemetry.page import Page
from gpuarbiter_server.telemetry.sources import Sources
from gpuarbiter_server.web import app as web
from gpuarbiter_server.web.guard import Guard

log = logging.getLogger(__name__)

# What is left to be written to the journal at the end gets this long.
_LAST_COMMIT = 5.0


async def serve(config: Config, *, log_writer: LogWriter, ready: Callable[[Addresses], None]) -> None:
    """Runs an arbiter until it is told to stop; StartError when it cannot start."""
    quiet.hush()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        kept = keep(config, stack)
        backend, specs = await gpus.find(config)
        stack.push_async_callback(gpus.close, backend)
        server = await _assemble(config, kept, backend, specs, log_writer, stack)
        # What is there now stays: the garbage collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        ready(server.addresses)
        await stop.wait()
        stop.clear()
        log.info("stopping: no new requests; holders have %g s to finish", server.live_config.config.shutdown_grace)
        await server.wind_down(stop)


@dataclass(frozen=True, slots=True)
class _Server:
    """What runs."""

    addresses: Addresses
    grpc: GrpcServer
    runtime: Runtime
    live_config: LiveConfig
    readiness: Readiness

    async def wind_down(self, hurry: asyncio.Event) -> None:
        """Takes no new requests, and waits for holders until the grace is over or it is told again."""
        self.readiness.stop()
        await self.grpc.announce(serving=False)
        self.runtime.submit(Shutdown())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.live_config.config.shutdown_grace):
                await _first_of(self.runtime.until_idle(), hurry.wait())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_COMMIT):
                await _first_of(self.runtime.until_settled(), hurry.wait())
        self.runtime.hang_up()


async def _assemble(
    config: Config,
    kept: Kept,
    backend: GpuBackend,
    specs: list[GpuSpec],
    log_writer: LogWriter,
    stack: contextlib.AsyncExitStack,
) -> _Server:
    """Builds and starts everything; what was started is stopped by the stack."""
    started_at = monotonic()
    beginning = kept.beginning
    about = About(secrets.token_hex(4), __version__, started_at, beginning.epoch)
    arbiter = Arbiter(
        specs,
        config.settings(),
        started_at,
        first_token=beginning.first_token,
        id_key=beginning.id_key,
        instance_id=about.instance_id,
        tokens_until=beginning.tokens_until,
    )
    observing = observe(config, specs, about, kept.history, log_writer, stack)
    metrics, observers = observing.metrics, observing.observers
    for observer in observers:
        detail = f"instance {about.instance_id}, epoch {about.epoch}, version {__version__}"
        observer.observe(Recorded(EventType.STARTED, detail=detail))
    readiness = Readiness()
    journal = None
    if kept.journal is not None:
        journal = JournalWriter(kept.journal, metrics)
        stack.push_async_callback(journal.close, _LAST_COMMIT)
    runtime = Runtime(arbiter, clock=monotonic, observers=observers, journal=journal, on_serving=readiness.serving)
    analysing = Analysing(config, specs, runtime.census, metrics, runtime.ask)
    sources = Sources(
        __version__,
        census=runtime.census,
        wall=wall,
        nvml_errors=backend.errors if isinstance(backend, NvmlBackend) else {},
        spans_dropped=observing.spans_dropped,
        analysed=analysing.shown,
    )
    page = Page(metrics, Gauges(known(config, specs), sources))
    sampler = Sampler(
        backend,
        specs,
        interval=config.sampler.interval,
        fast_interval=config.sampler.fast_interval,
        clock=monotonic,
        deliver=analysing.listen(runtime.submit_threadsafe),
        observe_poll=metrics.observe_poll,
    )
    processes = ProcessWatcher(asyncio.get_running_loop(), runtime.submit)
    machine = LocalMachine(sampler, processes)

    def reconfigured(new: Config) -> None:
        logs.configure(new.log_level, new.log_levels, new.log_format)
        page.configure(known(new, specs))
        analysing.configure(new)

    live_config = LiveConfig(config, runtime, on_change=reconfigured)
    console = Console(config, runtime, observing.history, about, analysing.service)
    attestation = holders.attestation(config)
    intake = Intake(holders.prover(machine, attestation))
    service = GpuArbiterService(runtime, intake, Converter(config.node_name(), monotonic), about)
    grpc_server = GrpcServer(
        service, GpuArbiterAdminService(runtime, live_config, observing.history), metrics.message_counter
    )
    stack.callback(processes.close)
    runtime.submit(DriverChanged(up=any(spec.source == "nvml" for spec in specs)))
    runtime.start(machine)
    guard = Guard(kept.admin_token)
    application = web.create(
        page if config.telemetry.metrics else None,
        lambda: readiness.missing,
        analysing.application(live_config, guard),
        console.routes(guard),
    )
    taken = take(config, grpc_server, stack)
    if beginning.recover is not None:
        # Once it is sure that it can serve, so that no grace runs out in vain; before anybody is served, so that
        # restart after restart keeps no dead lease.
        await runtime.recover(beginning.recover)
    await taken.serve(grpc_server, application, stack)
    _in_background(readiness.announce(grpc_server.announce), stack)
    _in_background(lag_of_the_loop(metrics.observe_lag), stack)
    analysing.start(stack)
    console.start(stack)
    if attestation is not None:
        await holders.start_attestation(attestation, stack)
    sampler.start()
    stack.push_async_callback(asyncio.to_thread, sampler.stop)
    return _Server(taken.addresses, grpc_server, runtime, live_config, readiness)


def _in_background(work: Any, stack: contextlib.AsyncExitStack) -> None:
    """Runs beside everything else until that ends."""
    task = asyncio.ensure_future(work)
    stack.callback(task.cancel)


async def _first_of(*waits: Any) -> None:
    """Returns when the first of these does."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
