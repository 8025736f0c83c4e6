"""The arbiter inside the test's own loop: real core, real gRPC on loopback, a machine that only takes notes.

Time is real until a test moves it: `advance` makes the arbiter's clock jump, and waits for what the
jump brings about.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.sdk.trace.export import SpanExporter

from fakes.polling import async_until
from gpuarbiter.v1 import admin_pb2, admin_pb2_grpc, snapshot_pb2
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import gpu_arbiter_pb2_grpc as rpc
from gpuarbiter_server.api.admin import GpuArbiterAdminService
from gpuarbiter_server.api.calls import Intake
from gpuarbiter_server.api.convert_out import Converter
from gpuarbiter_server.api.server import GrpcServer
from gpuarbiter_server.api.service import GpuArbiterService
from gpuarbiter_server.app.observing import known
from gpuarbiter_server.config import Config, load
from gpuarbiter_server.core.arbiter import Arbiter
from gpuarbiter_server.core.model import GpuSpec, Holder, ProcessId
from gpuarbiter_server.runtime.about import About
from gpuarbiter_server.runtime.clock import monotonic, wall
from gpuarbiter_server.runtime.live_config import LiveConfig
from gpuarbiter_server.runtime.runtime import Observer, Runtime
from gpuarbiter_server.store.history import History
from gpuarbiter_server.telemetry.export import Export
from gpuarbiter_server.telemetry.gauges import Gauges
from gpuarbiter_server.telemetry.metrics import Metrics
from gpuarbiter_server.telemetry.page import Page
from gpuarbiter_server.telemetry.sources import Sources
from gpuarbiter_server.telemetry.tracing import Traces

GIB = 1024**3
FIRST_TOKEN = 1000
NODE = "node-1"
VERSION = "0.0.test"


async def rest_of(call: Any) -> list[Any]:
    """The messages that are left of a stream that must end with OK."""
    answers = []
    while (answer := await call.read()) is not grpc.aio.EOF:
        answers.append(answer)
    assert await call.code() is grpc.StatusCode.OK
    return answers


class NotingMachine:
    """The machine that the runtime runs on: does nothing and keeps what it was told."""

    def __init__(self) -> None:
        self.watched: set[ProcessId] = set()
        self.refreshed: list[frozenset[str]] = []
        self.fast: frozenset[str] = frozenset()
        # The process of every holder that declares this pid.
        self.trusted: dict[int, ProcessId] = {}

    def trust(self, holder: Holder) -> ProcessId | None:
        """Trusts the pids that the test said."""
        return self.trusted.get(holder.pid)

    def watch(self, process: ProcessId) -> None:
        """Keeps it."""
        self.watched.add(process)

    def unwatch(self, process: ProcessId) -> None:
        """Forgets it."""
        self.watched.discard(process)

    def refresh(self, gpus: frozenset[str]) -> None:
        """Keeps it."""
        self.refreshed.append(gpus)

    def sample_fast(self, gpus: frozenset[str]) -> None:
        """Keeps it."""
        self.fast = gpus


class MovableClock:
    """Monotonic seconds that can be made to jump ahead."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        """Now."""
        return monotonic() + self.offset


class InProcess:
    """What runs, from the inside and through gRPC."""

    def __init__(
        self,
        config: Config,
        specs: list[GpuSpec],
        observers: Iterable[Observer],
        history: Path | None = None,
        exporter: SpanExporter | None = None,
    ) -> None:
        self.clock = MovableClock()
        self.machine = NotingMachine()
        about = About("instance-1", VERSION, self.clock())
        self.arbiter = Arbiter(
            specs,
            config.settings(),
            self.clock(),
            first_token=FIRST_TOKEN,
            id_key=b"key",
            instance_id=about.instance_id,
        )
        kept = config.history
        self.history = History(
            history, max_events=kept.max_events, max_age=kept.max_age, max_bytes=kept.max_bytes, wall=wall
        )
        self.nvml_errors: dict[tuple[str, str], int] = {}
        self.export = Export(VERSION, "instance-1", exporter) if exporter else None
        self.metrics = Metrics(known(config, specs), self.clock)
        seeing: list[Observer] = [self.history, self.metrics, *observers]
        if self.export is not None:
            traces = Traces(self.export.provider, {spec.key: spec.uuid for spec in specs}, time.time_ns)
            self.metrics = Metrics(known(config, specs), self.clock, lambda: traces.current)
            seeing = [self.history, traces, self.metrics, *observers]
        # A clock that jumps is no stall here.
        self.runtime = Runtime(self.arbiter, clock=self.clock, observers=seeing, stall=math.inf)
        sources = Sources(
            VERSION,
            census=self.runtime.census,
            wall=wall,
            nvml_errors=self.nvml_errors,
            spans_dropped=self.export.dropped if self.export else lambda: 0,
        )
        self.page = Page(self.metrics, Gauges(known(config, specs), sources))
        self.live_config = LiveConfig(
            config, self.runtime, on_change=lambda new: self.page.configure(known(new, specs))
        )
        intake = Intake(lambda holder, _token: self.machine.trust(holder))
        self.service = GpuArbiterService(self.runtime, intake, Converter(NODE, self.clock), about)
        self.server = GrpcServer(
            self.service,
            GpuArbiterAdminService(self.runtime, self.live_config, self.history),
            self.metrics.message_counter,
        )
        self.channel: grpc.aio.Channel
        self.stub: Any
        self.admin: Any
        self.port = 0

    def connect(self) -> grpc.aio.Channel:
        """A connection of its own."""
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", options=(("grpc.use_local_subchannel_pool", 1),))

    async def advance(self, by: float) -> None:
        """Lets so many seconds pass, from one deadline to the next, and what they bring about happen."""
        end = self.clock() + by
        while (deadline := self.arbiter.next_deadline()) is not None and deadline <= end:
            await self._jump_to(deadline)
        await self._jump_to(end)

    async def _jump_to(self, moment: float) -> None:
        self.clock.offset += max(0.0, moment - self.clock())
        self.runtime._ring()
        await async_until(lambda: not self.runtime._turn_planned)

    async def granted(self, request: pb.AcquireRequest) -> tuple[Any, Any]:
        """The stream of an Acquire, and its lease: reads on until Granted."""
        call = self.stub.Acquire(request)
        answer = await call.read()
        while answer.HasField("queued"):
            answer = await call.read()
        assert answer.HasField("granted"), answer
        return call, answer.granted.lease

    async def queued(self, request: pb.AcquireRequest) -> tuple[Any, Any]:
        """The stream of an Acquire that has to wait, and its first Queued."""
        call = self.stub.Acquire(request)
        answer = await call.read()
        assert answer.HasField("queued"), answer
        return call, answer.queued

    async def snapshot(self, **fields: Any) -> snapshot_pb2.ArbiterSnapshot:
        """The state as a client sees it."""
        async for answer in self.stub.Snapshot(pb.SnapshotRequest(**fields)):
            return answer.snapshot
        raise AssertionError("there was no snapshot")

    async def events(self, **fields: Any) -> list[admin_pb2.ListEventsResponse]:
        """The audit trail as a client sees it."""
        return [event async for event in self.admin.ListEvents(admin_pb2.ListEventsRequest(**fields))]

    async def at_rest(self) -> None:
        """Returns when no call is open any more: nothing may stay behind when its client is gone."""
        await async_until(lambda: not self.runtime._calls, f"for {len(self.runtime._calls)} open calls to be closed")


def configured(*settings: str) -> Config:
    """A configuration with some settings, as --set takes them."""
    return load(None, {}, settings)


def gpu_specs(count: int = 1, *, memory_bytes: int = 24 * GIB, monitored: bool = False) -> list[GpuSpec]:
    """GPUs; monitored ones wait for readings that the test submits."""
    return [
        GpuSpec(
            f"gpu:{index}",
            index,
            memory_bytes,
            uuid=f"GPU-{index:08d}",
            name="Test GPU",
            monitored=monitored,
            source="configured",
        )
        for index in range(count)
    ]


@asynccontextmanager
async def serving(
    *settings: str,
    gpus: int = 1,
    monitored: bool = False,
    observers: Iterable[Observer] = (),
    history: Path | None = None,
    exporter: SpanExporter | None = None,
) -> AsyncIterator[InProcess]:
    """A server that answers, with these settings ("cooldown=0s"); at its end nothing of a call may be left.

    history: the file of its events; without one they are in memory. exporter: where its spans go; None: there are none.
    """
    before = asyncio.all_tasks()
    arbiter = InProcess(configured(*settings), gpu_specs(gpus, monitored=monitored), observers, history, exporter)
    async with AsyncExitStack() as stack:
        arbiter.history.start()
        stack.push_async_callback(arbiter.history.close)
        if arbiter.export is not None:
            stack.push_async_callback(asyncio.to_thread, arbiter.export.close)
        arbiter.runtime.start(arbiter.machine)
        arbiter.port = arbiter.server.listen_tcp("127.0.0.1:0")
        await arbiter.server.start()
        stack.push_async_callback(arbiter.server.stop, 0.0)
        arbiter.channel = await stack.enter_async_context(arbiter.connect())
        arbiter.stub = rpc.GpuArbiterStub(arbiter.channel)
        arbiter.admin = admin_pb2_grpc.GpuArbiterAdminStub(arbiter.channel)
        yield arbiter
        await arbiter.channel.close()
        await arbiter.at_rest()
    await async_until(lambda: asyncio.all_tasks() <= before, f"for {asyncio.all_tasks() - before} to end")
