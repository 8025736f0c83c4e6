"""A real arbiter exports to a real OTLP receiver: what a client, grpcurl and a thousand leases look like there."""

import asyncio
import json
import secrets
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from e2e.harness.client import Client
from e2e.harness.otlp import Receiver, values
from e2e.harness.waiting import PATIENCE_SECONDS, eventually
from fakes.polling import until
from gpuarbiter import Arbiter, AsyncArbiter, WorkContext
from support.process import Arbiterd

Start = Callable[..., Arbiterd]
Connect = Callable[[Arbiterd], Client]

ACQUIRE, HOLD = "gpu_lease.acquire", "gpu_lease.hold"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def tracer() -> trace.Tracer:
    """A program's own tracing."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    return provider.get_tracer("a program")


def dropped(arbiter: Arbiterd) -> float:
    with urllib.request.urlopen(f"http://{arbiter.http}/metrics") as page:
        lines = page.read().decode().splitlines()
    (line,) = [line for line in lines if line.startswith("gpu_arbiter_spans_dropped_total ")]
    return float(line.split()[1])


async def test_one_call_of_the_library_is_one_trace(arbiterd: Start, receiver: Receiver, tracer: trace.Tracer):
    arbiter = arbiterd(more=receiver.env | {"OTEL_SERVICE_NAME": "our-arbiter"})
    async with AsyncArbiter(arbiter.grpc, client_id="asr-1") as library:
        with tracer.start_as_current_span("transcribe") as span:
            async with library.lease("ASR", context=WorkContext(job_id="job-1")) as lease:
                lease_id = lease.lease_id
    (asked,), (held,) = receiver.wait_for(ACQUIRE), receiver.wait_for(HOLD)
    caller = span.get_span_context()
    for each in (asked, held):
        assert each.trace_id.hex() == f"{caller.trace_id:032x}"
        assert each.parent_span_id.hex() == f"{caller.span_id:016x}"
        said = values(each.attributes)
        assert said["gpu_arbiter.lease.id"] == lease_id
        assert said["gpu_arbiter.lease.task"] == "ASR"
        assert said["gpu_arbiter.client.id"] == "asr-1"
        assert said["gpu_arbiter.context.job_id"] == "job-1"
        assert said["hw.type"] == "gpu"
        assert said["hw.id"].startswith("GPU-")
    assert [link.span_id for link in held.links] == [asked.span_id]
    assert asked.start_time_unix_nano <= asked.end_time_unix_nano <= held.end_time_unix_nano
    assert {resource["service.name"] for resource in receiver.resources} == {"our-arbiter"}
    # The log has the same trace, so that one leads to the other.
    logged = arbiter.wait_for(f"ENDED .*lease={lease_id}.*")[0]
    assert f"trace_id={caller.trace_id:032x}" in logged


def test_the_synchronous_library_tells_of_its_span_too(arbiterd: Start, receiver: Receiver, tracer: trace.Tracer):
    arbiter = arbiterd(more=receiver.env)
    with Arbiter(arbiter.grpc, client_id="batch") as library, tracer.start_as_current_span("work") as span:
        with library.lease("BATCH"):
            pass
        with library.lease("BATCH"):
            pass
    traces = {each.trace_id.hex() for each in receiver.wait_for(HOLD, 2)}
    assert traces == {f"{span.get_span_context().trace_id:032x}"}


@pytest.mark.tool("grpcurl")
def test_grpcurl_hands_its_trace_on_in_a_header(arbiterd: Start, receiver: Receiver, tool: Callable[[str], str]):
    arbiter = arbiterd(more=receiver.env)
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    request = {
        "task_type": "ASR",
        "holder": {"client_id": "grpcurl"},
        "request_id": "r",
        "ttl": "60s",
        "detached": True,
    }
    header = f"traceparent: 00-{trace_id}-{span_id}-01"
    method = "gpuarbiter.v1.GpuArbiter/Acquire"
    command = [tool("grpcurl"), "-plaintext", "-H", header, "-d", json.dumps(request), arbiter.grpc, method]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_SECONDS)
    (asked,) = receiver.wait_for(ACQUIRE)
    assert (asked.trace_id.hex(), asked.parent_span_id.hex()) == (trace_id, span_id)


async def test_a_thousand_leases_are_a_thousand_complete_traces(arbiterd: Start, receiver: Receiver, connect: Connect):
    # The queue for the export is larger than what comes while it is under way.
    arbiter = arbiterd("queue_limit=100", "log_level=warning", more=receiver.env | {"OTEL_BSP_MAX_QUEUE_SIZE": "4096"})
    client = connect(arbiter)

    async def fifty() -> None:
        for _ in range(50):
            stream = client.acquire("ASR", max_wait=60.0)
            await client.release(await stream.granted())
            await stream.until("ended")

    await asyncio.gather(*(fifty() for _ in range(20)))
    receiver.wait_for(HOLD, 1000)
    traces = receiver.by_trace()
    assert len(traces) == 1000
    for spans in traces.values():
        asked, held = sorted(spans, key=lambda span: span.name)
        assert (asked.name, held.name) == (ACQUIRE, HOLD)
        assert held.parent_span_id == asked.span_id
        assert values(asked.attributes)["gpu_arbiter.lease.id"] == values(held.attributes)["gpu_arbiter.lease.id"]
    assert dropped(arbiter) == 0


async def test_a_receiver_that_is_not_there_costs_spans_that_are_counted(arbiterd: Start, connect: Connect):
    gone = Receiver()
    gone.close()
    few = {"OTEL_BSP_MAX_QUEUE_SIZE": "20", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    arbiter = arbiterd(more=gone.env | few)
    client = connect(arbiter)

    async def spans_are_lost() -> bool:
        lease = await client.acquire("ASR").granted()
        await client.release(lease)
        return dropped(arbiter) >= 30

    await eventually(spans_are_lost, "spans to be lost, some in the queue and some in the export")
    assert arbiter.stop() == 0


async def test_a_lease_that_outlives_the_arbiter_is_told_of_with_its_caller(
    arbiterd: Start, launch: Start, receiver: Receiver, connect: Connect
):
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    first = launch(more=receiver.env).wait_until_ready()
    request = {"traceparent": f"00-{trace_id}-{span_id}-01", "request_id": "r", "ttl": 60.0, "detached": True}
    lease = await connect(first).acquire("ASR", **request).granted()
    receiver.wait_for(ACQUIRE)
    first.signal(signal.SIGKILL)
    first.wait()
    second = arbiterd(more=receiver.env)
    await connect(second).release(lease)
    (held,) = receiver.wait_for(HOLD)
    assert (held.trace_id.hex(), held.parent_span_id.hex()) == (trace_id, span_id)
    assert values(held.attributes)["gpu_arbiter.lease.id"] == lease.lease_id


async def test_without_an_endpoint_nothing_is_loaded_for_it(arbiterd: Start, connect: Connect):
    arbiter = arbiterd(more={"OTEL_TRACES_SAMPLER": "always_on"})
    client = connect(arbiter)
    await client.release(await client.acquire("ASR").granted())
    until(lambda: "ENDED" in arbiter.output, "for the lease to be logged")
    assert dropped(arbiter) == 0
    assert "trace_id" not in arbiter.output
