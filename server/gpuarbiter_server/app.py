"""The composition root: builds every room, connects them, and takes them down in order."""

import asyncio
import contextlib
import logging
import secrets
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from gpuarbiter_server import __version__
from gpuarbiter_server.api import quiet
from gpuarbiter_server.api.admin import GpuArbiterAdminService
from gpuarbiter_server.api.attestation import AttestationServer
from gpuarbiter_server.api.calls import Intake
from gpuarbiter_server.api.convert_out import Converter
from gpuarbiter_server.api.server import GrpcServer, ListenError
from gpuarbiter_server.api.service import GpuArbiterService
from gpuarbiter_server.config import IN_MEMORY, Address, Config, ConfiguredGpus, SimulatedGpus
from gpuarbiter_server.core.arbiter import Arbiter
from gpuarbiter_server.core.effects import Recorded
from gpuarbiter_server.core.events import DriverChanged, Shutdown
from gpuarbiter_server.core.model import EventType, GpuSpec, Holder, ProcessId
from gpuarbiter_server.gpu.backend import GpuBackend, NoDriverError
from gpuarbiter_server.gpu.nvml import NvmlBackend
from gpuarbiter_server.gpu.processes import ProcessWatcher
from gpuarbiter_server.gpu.sampler import Sampler
from gpuarbiter_server.gpu.simulated import SimulatedBackend, default_simulation_root
from gpuarbiter_server.gpu.static import StaticBackend
from gpuarbiter_server.runtime.about import About
from gpuarbiter_server.runtime.clock import monotonic, wall
from gpuarbiter_server.runtime.live_config import LiveConfig
from gpuarbiter_server.runtime.local_machine import LocalMachine
from gpuarbiter_server.runtime.runtime import Runtime
from gpuarbiter_server.runtime.threads import within
from gpuarbiter_server.store.history import History
from gpuarbiter_server.telemetry import logs
from gpuarbiter_server.telemetry.metrics import Metrics
from gpuarbiter_server.web import app as web
from gpuarbiter_server.web import serving

log = logging.getLogger(__name__)

# A driver that does not answer its first call by then counts as none.
_DRIVER_PATIENCE = 15.0
_LAST_PATIENCE = 1.0
# Fencing tokens start here when nothing is known of earlier ones: above all of an earlier start, as long
# as it granted fewer than 2^20 leases a second.
_TOKENS_PER_SECOND = 1 << 20
# Waiting requests that a scrape looks at, to count them by reason.
_SCRAPED_TICKETS = 1000


class StartError(Exception):
    """The arbiter cannot start; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where it serves; None where it does not."""

    grpc: str | None
    socket: Path | None
    http: str | None

    def __str__(self) -> str:
        served = (
            f"grpc {self.grpc}" if self.grpc else "",
            f"unix:{self.socket}" if self.socket else "",
            f"http {self.http}" if self.http else "",
        )
        return ", ".join(text for text in served if text)


async def serve(config: Config, *, ready: Callable[[Addresses], None]) -> None:
    """Runs an arbiter until it is told to stop; StartError when it cannot start."""
    quiet.hush()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _told_to_stop, stop)
    if config.journal.durability != IN_MEMORY:
        log.warning(
            "journal.durability: %s is not in force in this version: leases are kept in memory, and forgotten when the "
            "arbiter stops",
            config.journal.durability,
        )
    backend, specs = await _gpus(config)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(_close, backend)
        server = await _assemble(config, backend, specs, stack)
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
    stopping: asyncio.Event

    async def wind_down(self, hurry: asyncio.Event) -> None:
        """Takes no new requests, and waits for holders until the grace is over or it is told again."""
        self.stopping.set()
        await self.grpc.refuse()
        self.runtime.submit(Shutdown())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.live_config.config.shutdown_grace):
                await _first_of(self.runtime.until_idle(), hurry.wait())
        self.runtime.hang_up()


async def _assemble(
    config: Config, backend: GpuBackend, specs: list[GpuSpec], stack: contextlib.AsyncExitStack
) -> _Server:
    """Builds and starts everything; what was started is stopped by the stack."""
    started_at = monotonic()
    about = About(secrets.token_hex(4), __version__, started_at)
    arbiter = Arbiter(
        specs,
        config.settings(),
        started_at,
        first_token=int(time.time()) * _TOKENS_PER_SECOND,
        id_key=secrets.token_bytes(32),
        instance_id=about.instance_id,
    )
    history = History(config.history.max_events, wall=wall)
    metrics = Metrics(__version__, config.policies, lambda: runtime.snapshot(max_tickets=_SCRAPED_TICKETS))
    observers = (history, metrics, logs.EventLog())
    for observer in observers:
        observer.observe(Recorded(EventType.STARTED, detail=f"instance {about.instance_id}, version {__version__}"))
    runtime = Runtime(arbiter, clock=monotonic, observers=observers)
    sampler = Sampler(
        backend,
        specs,
        interval=config.sampler.interval,
        fast_interval=config.sampler.fast_interval,
        clock=monotonic,
        deliver=runtime.submit_threadsafe,
        observe_poll=metrics.observe_poll,
    )
    processes = ProcessWatcher(asyncio.get_running_loop(), runtime.submit)
    machine = LocalMachine(sampler, processes)

    def reconfigured(new: Config) -> None:
        logs.configure(new.log_level)
        metrics.configure(new.policies)

    live_config = LiveConfig(config, runtime, on_change=reconfigured)
    attestation = _attestation(config)
    intake = Intake(_prover(machine, attestation))
    service = GpuArbiterService(runtime, intake, Converter(config.node_name(), monotonic), about)
    grpc_server = GrpcServer(service, GpuArbiterAdminService(runtime, live_config, history))
    stack.callback(processes.close)
    runtime.submit(DriverChanged(up=any(spec.source == "nvml" for spec in specs)))
    runtime.start(machine)
    stopping = asyncio.Event()
    application = web.create(metrics.registry, lambda: "stopping" if stopping.is_set() else None)
    addresses = await _listen(config, grpc_server, application, stack)
    if attestation is not None:
        await _start_attestation(attestation, stack)
    sampler.start()
    stack.push_async_callback(asyncio.to_thread, sampler.stop)
    return _Server(addresses, grpc_server, runtime, live_config, stopping)


async def _gpus(config: Config) -> tuple[GpuBackend, list[GpuSpec]]:
    """The source of GPUs that is configured, and the GPUs that it shows."""
    backend: GpuBackend
    match config.gpus:
        case SimulatedGpus(count, memory_bytes):
            seed = f"{config.node_name()}/{config.listen.grpc}/{config.listen.socket}"
            backend = SimulatedBackend(count, memory_bytes, default_simulation_root(), seed)
        case ConfiguredGpus(listed):
            backend = StaticBackend(listed)
        case _:
            backend = NvmlBackend()
    try:
        found = await within(_DRIVER_PATIENCE, backend.open)
    except NoDriverError as error:
        raise StartError(
            f"{error}; without an NVIDIA driver set gpus to a list of GPUs, or to sim:1x24GiB for simulated ones"
        ) from error
    except TimeoutError as error:
        raise StartError(f"the NVIDIA driver did not answer within {_DRIVER_PATIENCE:g} s") from error
    return backend, list(found)


async def _close(backend: GpuBackend) -> None:
    """A driver that hangs does not keep the arbiter from ending."""
    with contextlib.suppress(TimeoutError):
        await within(_LAST_PATIENCE, backend.close)


def _attestation(config: Config) -> AttestationServer | None:
    """The attestation socket beside the gRPC one, where there is one."""
    path = config.listen.socket_path()
    return None if path is None else AttestationServer(path.with_name(path.name + ".attest"))


async def _start_attestation(server: AttestationServer, stack: contextlib.AsyncExitStack) -> None:
    """Attestation is a help, not a condition: without it pids are proved by /proc alone."""
    try:
        await server.start()
    except OSError as error:
        log.warning("no attestation socket: %s", error)
    else:
        stack.push_async_callback(server.close)


def _prover(machine: LocalMachine, attestation: AttestationServer | None) -> Callable[[Holder, str], ProcessId | None]:
    """Whose process a holder's is: the kernel's word before its own."""

    def prove(holder: Holder, token: str) -> ProcessId | None:
        attested = attestation.resolve(token) if attestation is not None and token else None
        return attested or machine.trust(holder)

    return prove


async def _listen(
    config: Config, server: GrpcServer, application: Starlette, stack: contextlib.AsyncExitStack
) -> Addresses:
    """Takes every address that is configured, or none: StartError says which is taken."""
    path, grpc_at, http_at = config.listen.socket_path(), config.listen.grpc_address(), config.listen.http_address()
    stack.push_async_callback(server.stop, 0.5)
    http_socket = _bind(http_at, stack) if http_at is not None else None
    try:
        port = server.listen_tcp(str(grpc_at)) if grpc_at is not None else None
        if path is not None:
            server.listen_unix(path)
    except ListenError as error:
        raise StartError(str(error)) from error
    await server.start()
    if http_socket is not None:
        stack.push_async_callback(serving.serve(http_socket, application))
    return Addresses(
        grpc=str(Address(grpc_at.host, port)) if grpc_at is not None and port else None,
        socket=path,
        http=_name(http_socket) if http_socket is not None else None,
    )


def _bind(address: Address, stack: contextlib.AsyncExitStack) -> socket.socket:
    try:
        listener = serving.bind(address.host, address.port)
    except OSError as error:
        raise StartError(
            f"{address} is in use or cannot be bound: does another gpu-arbiterd run there? ({error.strerror})"
        ) from error
    stack.callback(listener.close)
    return listener


def _name(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return str(Address(host, port))


async def _first_of(*waits: Any) -> None:
    """Returns when the first of these does."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _told_to_stop(stop: asyncio.Event) -> None:
    stop.set()
