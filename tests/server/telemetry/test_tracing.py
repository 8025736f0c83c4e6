"""The spans of a request and its lease, as a receiver gets them."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, format_span_id, format_trace_id

from fakes.polling import async_until
from gpuarbiter.v1 import admin_pb2 as admin
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import lease_pb2
from gpuarbiter_server.core.effects import Recorded
from gpuarbiter_server.core.events import ReadingTaken
from gpuarbiter_server.core.model import GpuProcess, GpuReading, ProcessId
from support.logs import no_errors_logged
from support.messages import GIB, acquire, holder, release, seconds
from support.refusals import refusal
from support.server import InProcess, rest_of, serving

ACQUIRE, HOLD, RECOVERY = "gpu_lease.acquire", "gpu_lease.hold", "gpu_lease.memory_recovery"
SAMPLED, UNSAMPLED = "01", "00"


def traceparent(flags: str = SAMPLED) -> tuple[str, str, str]:
    """A caller's header, and the ids of its trace and span."""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    return f"00-{trace_id}-{span_id}-{flags}", trace_id, span_id


class Seen:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.all: list[Recorded] = []

    def observe(self, recorded: Recorded) -> None:
        """Keeps it."""
        self.all.append(recorded)


class Receiver:
    """What was exported."""

    def __init__(self, arbiter: InProcess, exporter: InMemorySpanExporter) -> None:
        self.arbiter = arbiter
        self._exporter = exporter

    def spans(self) -> list[ReadableSpan]:
        """All, in the order of their ends."""
        assert self.arbiter.export is not None
        self.arbiter.export.provider.force_flush()
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        """Those of a name."""
        return [span for span in self.spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """The only one of a name."""
        (span,) = self.named(name)
        return span


@asynccontextmanager
async def traced(*settings: str, **options: Any) -> AsyncIterator[tuple[InProcess, Receiver]]:
    exporter = InMemorySpanExporter()
    with no_errors_logged():
        async with serving(*settings, exporter=exporter, **options) as arbiter:
            yield arbiter, Receiver(arbiter, exporter)


def ids(span: ReadableSpan) -> tuple[str, str]:
    return format_trace_id(span.context.trace_id), format_span_id(span.context.span_id)


def parent(span: ReadableSpan) -> tuple[str, str] | None:
    if span.parent is None:
        return None
    return format_trace_id(span.parent.trace_id), format_span_id(span.parent.span_id)


def links(span: ReadableSpan) -> dict[str, tuple[str, str]]:
    return {
        str((link.attributes or {})["gpu_arbiter.link"]): (
            format_trace_id(link.context.trace_id),
            format_span_id(link.context.span_id),
        )
        for link in span.links
    }


async def test_a_lease_is_one_trace_below_the_callers_span():
    header, trace_id, span_id = traceparent()
    async with traced() as (arbiter, receiver):
        call = arbiter.stub.Acquire(acquire("r"), metadata=(("traceparent", header),))
        lease = (await call.read()).granted.lease
        await arbiter.advance(2.0)
        await arbiter.stub.Release(release(lease))
        asked, held = receiver.one(ACQUIRE), receiver.one(HOLD)
    assert {ids(asked)[0], ids(held)[0]} == {trace_id}
    assert parent(asked) == parent(held) == (trace_id, span_id)
    assert links(held) == {"acquired_by": ids(asked)}
    assert asked.status.status_code is held.status.status_code is StatusCode.UNSET
    assert held.end_time - held.start_time >= 2e9
    assert abs(held.start_time - asked.end_time) < 10e9


async def test_without_a_caller_the_request_is_the_root_and_the_lease_its_child():
    async with traced() as (arbiter, receiver):
        for _ in range(2):
            _, lease = await arbiter.granted(acquire())
            await arbiter.stub.Release(release(lease))
        asked, held = receiver.named(ACQUIRE), receiver.named(HOLD)
    assert [parent(span) for span in asked] == [None, None]
    assert [parent(span) for span in held] == [ids(span) for span in asked]
    assert len({ids(span)[0] for span in asked}) == 2


async def test_a_request_says_its_trace_itself_where_metadata_cannot():
    header, trace_id, span_id = traceparent()
    other, _, _ = traceparent()
    async with traced() as (arbiter, receiver):
        session = arbiter.stub.Session(metadata=(("traceparent", other),))
        await session.write(pb.SessionRequest(call_id=1, open={"holder": holder()}))
        await session.write(pb.SessionRequest(call_id=2, acquire=acquire("r", traceparent=header)))
        answers = [await session.read() for _ in range(2)]
        lease = answers[1].acquire.granted.lease
        await session.write(pb.SessionRequest(call_id=3, release=release(lease)))
        await async_until(lambda: receiver.named(HOLD))
        await session.done_writing()
        assert parent(receiver.one(ACQUIRE)) == parent(receiver.one(HOLD)) == (trace_id, span_id)


async def test_the_metadata_of_a_session_stand_for_requests_that_say_nothing():
    header, trace_id, span_id = traceparent()
    async with traced() as (arbiter, receiver):
        session = arbiter.stub.Session(metadata=(("traceparent", header),))
        await session.write(pb.SessionRequest(call_id=1, open={"holder": holder()}))
        await session.write(pb.SessionRequest(call_id=2, acquire=acquire()))
        await async_until(lambda: receiver.named(ACQUIRE))
        session.cancel()
        assert parent(receiver.one(ACQUIRE)) == (trace_id, span_id)


async def test_what_the_caller_does_not_sample_is_not_sampled_here():
    async with traced() as (arbiter, receiver):
        _, lease = await arbiter.granted(acquire(traceparent=traceparent(UNSAMPLED)[0]))
        await arbiter.stub.Release(release(lease))
        assert receiver.spans() == []


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        "00-" + "0" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "a" * 32 + "-" + "0" * 16 + "-01",
        "00-" + "a" * 32 + "-" + "1" * 16 + "-01-more",
        "ff-" + "a" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "A" * 32 + "-" + "1" * 16 + "-01",
        "00-not a trace-" + "1" * 16 + "-01",
        "x" * 128,
    ],
)
async def test_a_trace_that_makes_no_sense_is_as_good_as_none(header: str):
    seen = Seen()
    async with traced(observers=[seen]) as (arbiter, receiver):
        for request, metadata in ((acquire(traceparent=header), ()), (acquire(), (("traceparent", header),))):
            call = arbiter.stub.Acquire(request, metadata=metadata)
            lease = (await call.read()).granted.lease
            await arbiter.stub.Release(release(lease))
        assert [parent(span) for span in receiver.named(ACQUIRE)] == [None, None]
    # Nor does it stand in the log or in the history.
    assert {recorded.traceparent for recorded in seen.all} == {""}


async def test_a_later_version_of_the_header_may_say_more():
    header, trace_id, span_id = traceparent()
    async with traced() as (arbiter, receiver):
        _, lease = await arbiter.granted(acquire(traceparent="01" + header.removeprefix("00") + "-more"))
        await arbiter.stub.Release(release(lease))
        assert parent(receiver.one(ACQUIRE)) == (trace_id, span_id)


async def test_the_state_of_the_callers_trace_is_handed_on():
    header, _, _ = traceparent()
    async with traced() as (arbiter, receiver):
        arbiter.stub.Acquire(acquire(), metadata=(("traceparent", header), ("tracestate", "vendor=42")))
        await async_until(lambda: receiver.named(ACQUIRE))
        span = receiver.one(ACQUIRE)
        assert span.parent is not None
        assert span.parent.trace_state.get("vendor") == "42"


async def test_the_attributes_of_a_request_and_its_lease():
    context = lease_pb2.WorkContext(job_id="job-1", session_id="session-1", utterance_index=7, stage="asr")
    context.attributes["shot"] = "12"
    context.attributes["job_id"] = "another"
    named = holder("worker-0", namespace="speech", pod="asr-1", pid=100)
    async with traced("policies.ASR.priority=90", monitored=True) as (arbiter, receiver):
        arbiter.machine.trusted[100] = ProcessId(100, 1)
        arbiter.runtime.submit(ReadingTaken("gpu:0", GpuReading(arbiter.clock(), memory_used_bytes=0, processes=())))
        wish = {"memory_bytes": GIB, "sharing": lease_pb2.SHARING_SHARED}
        _, lease = await arbiter.granted(acquire("r-1", holder=named, gpu=wish, context=context))
        seen = (GpuProcess(ProcessId(100, 1), 2 * GIB),)
        reading = GpuReading(arbiter.clock(), memory_used_bytes=2 * GIB, processes=seen)
        arbiter.runtime.submit(ReadingTaken("gpu:0", reading))
        await arbiter.snapshot()
        done = lease_pb2.WorkReport(work_items=8, result=lease_pb2.WORK_RESULT_OK, device=lease_pb2.WORK_DEVICE_GPU)
        await arbiter.stub.Release(
            pb.ReleaseRequest(lease_id=lease.lease_id, fencing_token=lease.fencing_token, report=done)
        )
        asked, held = dict(receiver.one(ACQUIRE).attributes), dict(receiver.one(HOLD).attributes)
        headroom = arbiter.runtime.snapshot().gpus[0].headroom_bytes
        resource = receiver.one(HOLD).resource.attributes
    both = {
        "gpu_arbiter.lease.id": lease.lease_id,
        "gpu_arbiter.lease.task": "ASR",
        "gpu_arbiter.lease.priority": 90,
        "gpu_arbiter.lease.sharing": "shared",
        "gpu_arbiter.lease.fencing_token": lease.fencing_token,
        "gpu_arbiter.request.id": "r-1",
        "gpu_arbiter.client.id": "worker-0",
        "gpu_arbiter.context.job_id": "job-1",
        "gpu_arbiter.context.stage": "asr",
        "gpu_arbiter.context.utterance_index": 7,
        "gpu_arbiter.context.shot": "12",
        "session.id": "session-1",
        "hw.type": "gpu",
        "hw.id": "GPU-00000000",
        "process.pid": 100,
        "k8s.namespace.name": "speech",
        "k8s.pod.name": "asr-1",
    }
    assert asked == both | {
        "gpu_arbiter.lease.outcome": "granted",
        "gpu_arbiter.memory.declared_bytes": GIB,
        "gpu_arbiter.memory.committed_bytes": GIB,
        "gpu_arbiter.memory.admissible_at_grant_bytes": 24 * GIB - headroom,
    }
    assert held == both | {
        "gpu_arbiter.lease.end_reason": "released",
        "gpu_arbiter.memory.peak_bytes": 2 * GIB,
        "gpu_arbiter.work.items": 8,
        "gpu_arbiter.work.result": "ok",
        "gpu_arbiter.work.device": "gpu",
    }
    assert resource["service.name"] == "gpu-arbiter"
    assert resource["service.instance.id"] == "instance-1"


@pytest.mark.parametrize(("index", "shown"), [(2**63 - 1, 2**63 - 1), (2**64 - 1, "18446744073709551615")])
async def test_a_number_that_otlp_has_no_room_for_is_a_text(index: int, shown: int | str):
    async with traced() as (arbiter, receiver):
        _, lease = await arbiter.granted(acquire(context=lease_pb2.WorkContext(utterance_index=index)))
        await arbiter.stub.Release(release(lease))
        span = receiver.one(HOLD)
        assert span.attributes is not None
        assert span.attributes["gpu_arbiter.context.utterance_index"] == shown
        # An error in the log would fail the test.
        encode_spans(receiver.spans())


async def test_a_request_that_waited_says_for_whom_and_how_long():
    async with traced() as (arbiter, receiver):
        _, first = await arbiter.granted(acquire("first", max_hold=0))
        waiting, _ = await arbiter.queued(acquire("second", max_wait=60))
        await arbiter.advance(3.0)
        await arbiter.stub.Release(release(first))
        assert (await waiting.read()).HasField("granted")
        asked = receiver.named(ACQUIRE)[1]
        held = receiver.one(HOLD)
    assert links(asked) == {"blocked_by": ids(held)}
    assert asked.attributes["gpu_arbiter.queue.position"] == 1
    assert asked.attributes["gpu_arbiter.queue.depth"] == 1
    assert asked.attributes["gpu_arbiter.queue.reason"] == "gpu_busy"
    assert 3e9 <= asked.end_time - asked.start_time < 10e9


async def test_a_request_that_waited_in_vain_says_for_how_long():
    async with traced() as (arbiter, receiver):
        _, first = await arbiter.granted(acquire("first", max_hold=0))
        waiting, _ = await arbiter.queued(acquire("second", max_wait=5))
        await arbiter.advance(5.0)
        assert (await refusal(waiting.read())).reason == "WAIT_TIMEOUT"
        leaving, _ = await arbiter.queued(acquire(max_wait=60))
        await arbiter.advance(7.0)
        leaving.cancel()
        await async_until(lambda: not arbiter.runtime.snapshot().queue)
        taken_back, _ = await arbiter.queued(acquire("third", max_wait=60))
        await arbiter.advance(9.0)
        await arbiter.stub.Release(pb.ReleaseRequest(request_id="third"))
        assert (await refusal(taken_back.read())).reason == "CANCELLED"
        await arbiter.stub.Release(release(first))
        waits = [(span.end_time - span.start_time) / 1e9 for span in receiver.named(ACQUIRE)[1:]]
        page = b"".join(arbiter.page()).decode()
    assert [round(wait) for wait in waits] == [5, 7, 9]
    assert 'gpu_arbiter_queue_wait_seconds_count{task="other",outcome="abandoned"} 3\n' in page


async def test_what_is_refused_is_an_error_and_what_was_asked_for_is_none():
    async with traced("queue_limit=1") as (arbiter, receiver):
        _, lease = await arbiter.granted(acquire(max_hold=0))
        await rest_of(arbiter.stub.Acquire(acquire(max_wait=0, busy_policy=lease_pb2.BUSY_POLICY_SKIP)))
        waiting, _ = await arbiter.queued(acquire(max_wait=5))
        assert (await refusal(arbiter.stub.Acquire(acquire()).read())).reason == "QUEUE_FULL"
        await arbiter.advance(5.0)
        assert (await refusal(waiting.read())).reason == "WAIT_TIMEOUT"
        leaving, _ = await arbiter.queued(acquire(max_wait=60))
        leaving.cancel()
        await async_until(lambda: not arbiter.runtime.snapshot().queue)
        await arbiter.stub.Release(release(lease))
        spans = {str(span.attributes["gpu_arbiter.lease.outcome"]): span for span in receiver.named(ACQUIRE)}
    errors = {outcome: span.attributes.get("error.type") for outcome, span in spans.items()}
    assert errors == {
        "granted": None,
        "skipped": None,
        "cancelled": None,
        "queue_full": "queue_full",
        "timeout": "timeout",
    }
    for span in spans.values():
        assert (span.status.status_code is StatusCode.ERROR) == ("error.type" in span.attributes)
    assert spans["timeout"].status.description.startswith("waited 5.")


async def test_a_lease_that_ends_badly_is_an_error_with_what_happened_before():
    settings = ("policies.ASR.watchdog={yield: true, grace: 2s, revoke: true}", "cooldown=0s")
    async with traced(*settings) as (arbiter, receiver):
        call, _ = await arbiter.granted(acquire(max_hold=1))
        await arbiter.advance(3.0)
        await rest_of(call)
        held = receiver.one(HOLD)
    assert held.attributes["gpu_arbiter.lease.end_reason"] == held.attributes["error.type"] == "max_hold"
    assert held.status.status_code is StatusCode.ERROR
    assert [event.name for event in held.events] == ["hold_exceeded", "yield_requested"]
    assert held.events[1].attributes["reason"] == "max_hold"


@pytest.mark.parametrize(("result", "kind"), [("FAILED", "failed"), ("OUT_OF_MEMORY", "out_of_memory")])
async def test_work_that_failed_is_an_error_of_its_lease(result: str, kind: str):
    async with traced() as (arbiter, receiver):
        _, lease = await arbiter.granted(acquire())
        report = lease_pb2.WorkReport(result=f"WORK_RESULT_{result}", device=lease_pb2.WORK_DEVICE_GPU)
        await arbiter.stub.Release(pb.ReleaseRequest(lease_id=lease.lease_id, report=report))
        assert receiver.one(HOLD).attributes["error.type"] == kind


async def test_who_asks_again_is_linked_to_its_first_attempt():
    async with traced() as (arbiter, receiver):
        _, other = await arbiter.granted(acquire("other", client="other", max_hold=0))
        assert (await refusal(arbiter.stub.Acquire(acquire("mine", max_wait=0)).read())).reason == "WAIT_TIMEOUT"
        await arbiter.stub.Release(release(other))
        await arbiter.granted(acquire("mine"))
        _, first, second = receiver.named(ACQUIRE)
    assert links(second) == {"retry_of": ids(first)}
    assert links(first).keys() == set()


async def test_the_memory_of_a_lease_that_somebody_waits_for_has_a_span_of_its_own():
    async with traced("cooldown=0s", monitored=True) as (arbiter, receiver):

        def reads(used: int) -> None:
            reading = GpuReading(arbiter.clock(), memory_used_bytes=used, processes=())
            arbiter.runtime.submit(ReadingTaken("gpu:0", reading))

        reads(0)
        wish = {"memory_bytes": 20 * GIB, "sharing": lease_pb2.SHARING_SHARED}
        _, lease = await arbiter.granted(acquire(gpu=wish, max_hold=0))
        reads(20 * GIB)
        await arbiter.stub.Release(release(lease))
        waiting, _ = await arbiter.queued(acquire(gpu=wish, max_wait=60))
        await arbiter.advance(1.0)
        reads(0)
        assert (await waiting.read()).HasField("granted")
        held, back = receiver.one(HOLD), receiver.one(RECOVERY)
    assert links(back) == {"recovers_from": ids(held)}
    assert ids(back)[0] == ids(held)[0]
    assert back.end_time - back.start_time >= 1e9


async def test_waits_and_holds_point_to_their_spans():
    async with traced() as (arbiter, receiver):
        _, lease = await arbiter.granted(acquire())
        await arbiter.stub.Release(release(lease))
        page = b"".join(arbiter.page(openmetrics=True)).decode()
        classic = b"".join(arbiter.page()).decode()
        asked, held = ids(receiver.one(ACQUIRE)), ids(receiver.one(HOLD))
    found = {line.split("{")[0]: line for line in page.splitlines() if "trace_id" in line}
    assert set(found) == {"gpu_arbiter_queue_wait_seconds_bucket", "gpu_arbiter_lease_hold_seconds_bucket"}
    for name, (trace_id, span_id) in (("queue_wait", asked), ("lease_hold", held)):
        line = found[f"gpu_arbiter_{name}_seconds_bucket"]
        assert f'# {{trace_id="{trace_id}",span_id="{span_id}"}}' in line
    assert "trace_id" not in classic


async def test_a_lease_that_is_not_sampled_has_no_exemplar():
    async with traced() as (arbiter, _):
        _, lease = await arbiter.granted(acquire(traceparent=traceparent(UNSAMPLED)[0]))
        await arbiter.stub.Release(release(lease))
        assert b"trace_id" not in b"".join(arbiter.page(openmetrics=True))


async def test_a_hundred_leases_at_once_are_a_hundred_traces():
    async with traced("queue_limit=200") as (arbiter, receiver):

        async def one() -> None:
            _, lease = await arbiter.granted(acquire(max_wait=60))
            await arbiter.stub.Release(release(lease))

        await asyncio.gather(*(one() for _ in range(100)))
        traces: dict[int, set[str]] = {}
        for span in receiver.spans():
            traces.setdefault(span.context.trace_id, set()).add(span.name)
        assert len(traces) == 100
        assert set(map(frozenset, traces.values())) == {frozenset({ACQUIRE, HOLD})}


async def test_an_operator_who_asks_is_an_event_of_the_hold():
    async with traced() as (arbiter, receiver):
        _, lease = await arbiter.granted(acquire(max_hold=0))
        await arbiter.admin.Revoke(admin.RevokeRequest(lease_id=lease.lease_id, grace=seconds(60), reason="upgrade"))
        await arbiter.stub.Release(release(lease))
        (event,) = receiver.one(HOLD).events
    assert (event.name, event.attributes["reason"]) == ("yield_requested", "operator")
