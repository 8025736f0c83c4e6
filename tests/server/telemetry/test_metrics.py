"""What a scrape shows after things of which we know that they happened."""

import re
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from fakes.polling import async_until
from gpuarbiter.v1 import admin_pb2 as admin
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import lease_pb2
from gpuarbiter_server.api.convert_in import acquire_request
from gpuarbiter_server.core.effects import Recorded
from gpuarbiter_server.core.events import Acquire, DriverChanged, GpuFailed, ProcessExited, ReadingTaken
from gpuarbiter_server.core.model import EndReason, EventType, GpuProcess, GpuReading, Holder, ProcessId
from gpuarbiter_server.runtime.clock import wall
from gpuarbiter_server.telemetry import catalogue
from support.logs import no_errors_logged
from support.messages import GIB, acquire, holder, release, seconds
from support.refusals import refusal
from support.server import VERSION, InProcess, rest_of, serving

SKIP, FALLBACK = lease_pb2.BUSY_POLICY_SKIP, lease_pb2.BUSY_POLICY_FALLBACK_CPU


@pytest.fixture(autouse=True)
def nothing_goes_wrong() -> Iterator[None]:
    with no_errors_logged():
        yield


def exposition(arbiter: InProcess) -> str:
    return b"".join(arbiter.page()).decode()


def value(arbiter: InProcess, name: str, **labels: str) -> float | None:
    """A sample; None where there is none."""
    found = {sample.value for sample in every_sample(arbiter, name) if sample.labels == labels}
    return found.pop() if found else None


def samples(arbiter: InProcess, name: str) -> dict[tuple[str, ...], float]:
    """Every sample of a name that is not 0, by the values of its labels in the order of the catalogue."""
    (metric,) = [metric for metric in catalogue.CATALOGUE if metric.full_name == catalogue.PREFIX + name]
    return {
        tuple(sample.labels[label] for label in metric.label_names): sample.value
        for sample in every_sample(arbiter, name)
        if sample.value
    }


def every_sample(arbiter: InProcess, name: str) -> list[Sample]:
    return [
        sample
        for family in text_string_to_metric_families(exposition(arbiter))
        for sample in family.samples
        if sample.name == catalogue.PREFIX + name
    ]


def take(arbiter: InProcess, **figures: Any) -> None:
    arbiter.runtime.submit(ReadingTaken("gpu:0", GpuReading(arbiter.clock(), **figures)))


# -- the form --


async def test_every_family_has_its_help_and_type_and_our_prefix_and_none_is_missing():
    async with serving() as arbiter:
        text = exposition(arbiter)
    helped = dict(re.findall(r"^# HELP (\S+) (.+)$", text, re.MULTILINE))
    typed = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    suffixes = {"counter": "_total", "info": "_info"}
    expected = {
        f"{catalogue.PREFIX}{metric.name}{suffixes.get(metric.kind, '')}": metric for metric in catalogue.CATALOGUE
    }
    assert helped == {name: metric.help for name, metric in expected.items()}
    classic = {"info": "gauge"}
    assert typed == {name: classic.get(metric.kind, metric.kind) for name, metric in expected.items()}
    assert len(typed) >= 25
    for family in text_string_to_metric_families(text):
        assert family.name.startswith(catalogue.PREFIX)
    assert "_created" not in text


def test_the_catalogue_keeps_its_own_rules():
    names = [metric.name for metric in catalogue.CATALOGUE]
    assert len(set(names)) == len(names)
    by_lease = {catalogue.LEASE_INFO, catalogue.LEASE_USED}
    for metric in catalogue.CATALOGUE:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", metric.name)
        assert not metric.name.endswith(("_total", "_info", "_ms", "_mb", "_percent"))
        assert metric.kind in {"counter", "gauge", "histogram", "info"}
        assert bool(metric.buckets) == (metric.kind == "histogram")
        assert list(metric.buckets) == sorted(set(metric.buckets))
        assert metric.help.endswith(".")
        own = {"lease_id", "request_id", "job_id", "session_id", "pid", "client_id"}
        assert metric in by_lease or not set(metric.label_names) & own


async def test_an_idle_arbiter_shows_no_leases_and_no_queue():
    async with serving() as arbiter:
        for name in ("leases", "waiters", "acquire_total", "lease_ends_total"):
            assert not any(samples(arbiter, name).values()), name
        assert value(arbiter, "build_info", version=VERSION) == 1
        assert value(arbiter, "queue_limit", gpu="gpu:0") == 8


async def test_every_set_of_labels_that_is_known_is_there_from_the_start():
    settings = ("policies.ASR.priority=90", "telemetry.namespaces=[speech]")
    async with serving(*settings, gpus=2) as arbiter:
        tasks, gpus = set(arbiter.live_config.config.policies) | {"other"}, {"gpu:0", "gpu:1"}
        assert "ASR" in tasks
        counted = [metric for metric in catalogue.CATALOGUE if metric.kind == "counter"]
        for metric in (*counted, catalogue.LEASES, catalogue.WAITERS):
            name = metric.full_name.removeprefix(catalogue.PREFIX)
            there = [
                tuple(sample.labels[label] for label in metric.label_names) for sample in every_sample(arbiter, name)
            ]
            values = {
                catalogue.Values.GPUS: gpus,
                catalogue.Values.GPUS_OR_ANY: gpus | {"any"},
                catalogue.Values.TASKS: tasks,
                catalogue.Values.NAMESPACES: {"speech", "other"},
            }
            if all(label.values is not catalogue.Values.FREE for label in metric.labels):
                domains = [values.get(label.values, label.values) for label in metric.labels]
                assert sorted(there) == sorted(product(*domains)), name


# -- counts --


async def test_a_lease_is_counted_from_its_grant_to_its_end():
    async with serving("policies.ASR.priority=90", gpus=2) as arbiter:
        _, lease = await arbiter.granted(acquire(gpu={"count": 2}))
        for gpu in ("gpu:0", "gpu:1"):
            assert value(arbiter, "acquire_total", gpu=gpu, task="ASR", outcome="granted") == 1
            assert value(arbiter, "leases", gpu=gpu, task="ASR", state="held") == 1
        assert value(arbiter, "queue_wait_seconds_count", task="ASR", outcome="granted") == 1
        await arbiter.advance(3.0)
        await arbiter.stub.Release(release(lease))
        assert value(arbiter, "lease_ends_total", gpu="gpu:0", task="ASR", end="released") == 1
        assert value(arbiter, "lease_hold_seconds_count", task="ASR") == 1
        assert 3 <= (value(arbiter, "lease_hold_seconds_sum", task="ASR") or 0) < 6
        assert samples(arbiter, "leases") == {}


async def test_each_way_for_a_request_to_turn_out_has_its_outcome():
    async with serving("queue_limit=1", "policies.ASR.priority=50", gpus=2) as arbiter:
        _, lease = await arbiter.granted(acquire(max_hold=0, gpu={"count": 2}))
        await rest_of(arbiter.stub.Acquire(acquire(max_wait=0, busy_policy=SKIP)))
        await rest_of(arbiter.stub.Acquire(acquire(max_wait=0, busy_policy=FALLBACK)))
        waiting, _ = await arbiter.queued(acquire(max_wait=5))
        assert (await refusal(arbiter.stub.Acquire(acquire()).read())).reason == "QUEUE_FULL"
        await arbiter.advance(5.0)
        assert (await refusal(waiting.read())).reason == "WAIT_TIMEOUT"
        assert (await refusal(arbiter.stub.Acquire(acquire(gpu={"count": 5})).read())).reason == "INFEASIBLE"
        leaving, _ = await arbiter.queued(acquire(max_wait=60))
        leaving.cancel()
        await async_until(lambda: not arbiter.runtime.snapshot().queue)
        await arbiter.stub.Release(release(lease))
        await arbiter.at_rest()
        counted = samples(arbiter, "acquire_total")
        assert {outcome: count for (_, _, outcome), count in counted.items()} == dict.fromkeys(
            ("granted", "skipped", "fallback_cpu", "timeout", "queue_full", "no_memory", "cancelled"), 1
        )
        assert {task for _, task, _ in counted} == {"ASR"}
        assert {gpu for gpu, _, outcome in counted if outcome != "granted"} == {"any"}


async def test_where_there_is_one_gpu_a_request_for_any_is_a_request_for_that():
    async with serving() as arbiter:
        await arbiter.granted(acquire(max_hold=0))
        waiting, _ = await arbiter.queued(acquire(max_wait=1))
        assert samples(arbiter, "waiters") == {("gpu:0", "other", "gpu_busy"): 1}
        await arbiter.advance(1.0)
        assert (await refusal(waiting.read())).reason == "WAIT_TIMEOUT"
        assert samples(arbiter, "acquire_total")["gpu:0", "other", "timeout"] == 1


async def test_a_request_for_named_gpus_is_counted_at_each_of_them():
    async with serving(gpus=2, monitored=True) as arbiter:
        for gpu in ("gpu:0", "gpu:1"):
            arbiter.runtime.submit(GpuFailed(gpu, "gone"))
        request = acquire(gpu={"candidates": ["gpu:1"]})
        assert (await refusal(arbiter.stub.Acquire(request).read())).reason == "GPU_UNAVAILABLE"
        assert samples(arbiter, "acquire_total") == {("gpu:1", "other", "error"): 1}


async def test_the_watchdogs_steps_are_counted():
    watchdog = "policies.ASR.watchdog={yield: true, grace: 2s, revoke: true}"
    async with serving(watchdog, "cooldown=0s") as arbiter:
        call, _ = await arbiter.granted(acquire(max_hold=1))
        await arbiter.advance(1.0)
        assert value(arbiter, "leases", gpu="gpu:0", task="ASR", state="yielding") == 1
        await arbiter.advance(2.0)
        assert len(await rest_of(call)) == 2
        actions = samples(arbiter, "watchdog_actions_total")
        assert actions == {("gpu:0", "ASR", action): 1 for action in ("warn", "yield", "revoke")}
        assert samples(arbiter, "yield_requests_total") == {("gpu:0", "ASR", "max_hold"): 1}
        assert samples(arbiter, "lease_ends_total") == {("gpu:0", "ASR", "max_hold"): 1}


async def test_other_yield_requests_are_none_of_the_watchdogs():
    async with serving() as arbiter:
        _, lease = await arbiter.granted(acquire())
        await arbiter.admin.Revoke(admin.RevokeRequest(lease_id=lease.lease_id, grace=seconds(60)))
        assert samples(arbiter, "yield_requests_total") == {("gpu:0", "other", "operator"): 1}
        assert samples(arbiter, "watchdog_actions_total") == {}


async def test_waiters_are_shown_by_what_keeps_them_back():
    async with serving(gpus=2) as arbiter:
        await arbiter.granted(acquire(gpu={"count": 2}))
        calls = [
            await arbiter.queued(acquire(max_wait=60)),
            await arbiter.queued(acquire(max_wait=60, task_type="RUN", gpu={"candidates": ["gpu:1"]})),
        ]
        assert samples(arbiter, "waiters") == {("any", "other", "gpu_busy"): 1, ("gpu:1", "RUN", "gpu_busy"): 1}
        for call, _ in calls:
            call.cancel()


async def test_what_a_client_writes_never_becomes_a_label():
    async with serving("policies.ASR.priority=90", gpus=3) as arbiter:
        await arbiter.granted(acquire("secret-id", client="client-x", task_type="ASR"))
        for number in range(2):
            await arbiter.granted(acquire(task_type=f"made-up-{number}"))
        text = exposition(arbiter)
        for word in ("secret-id", "client-x", "made-up"):
            assert word not in text
        assert {task for _, task, _ in samples(arbiter, "leases")} == {"ASR", "other"}


async def test_ten_thousand_names_from_hostile_clients_add_no_line():
    settings = ("queue_limit=20000", "limits.waiting_per_client=0", "telemetry.namespaces=[speech]")
    async with serving(*settings) as arbiter:
        _, lease = await arbiter.granted(acquire())
        await arbiter.stub.Release(release(lease))
        before = len(exposition(arbiter).splitlines())
        for number in range(10_000):
            named = Holder(f"client-{number}", namespace=f"namespace-{number}", pod=f"pod-{number}")
            facts = {"lease_id": f"lease-{number}", "request_id": f"request-{number}", "task_type": f"task-{number}"}
            arbiter.metrics.observe(
                Recorded(EventType.GRANTED, holder=named, gpus=("gpu:0",), outcome="granted", waited=0.0, **facts)
            )
            arbiter.metrics.observe(
                Recorded(
                    EventType.ENDED, holder=named, gpus=("gpu:0",), held=1.0, end_reason=EndReason.RELEASED, **facts
                )
            )
        assert len(exposition(arbiter).splitlines()) == before
        ended = value(arbiter, "lease_ends_total", gpu="gpu:0", task="other", end="released")
        assert ended == 10_001
        assert value(arbiter, "lease_seconds_total", gpu="gpu:0", task="other", holder_namespace="other") >= 10_000


async def test_lease_time_is_told_apart_by_the_namespaces_that_are_configured():
    async with serving("telemetry.namespaces=[speech, vision]", gpus=2) as arbiter:
        for namespace in ("speech", "unheard-of"):
            _, lease = await arbiter.granted(acquire(holder=holder(namespace=namespace)))
            await arbiter.advance(2.0)
            await arbiter.stub.Release(release(lease))
        assert {namespace for _, _, namespace in samples(arbiter, "lease_seconds_total")} == {"speech", "other"}


async def test_messages_are_counted_in_both_directions_by_what_is_in_them():
    async with serving() as arbiter:
        assert value(arbiter, "rpc_messages_total", direction="sent", type="AcquireResponse.granted") == 0
        _, lease = await arbiter.granted(acquire())
        await arbiter.stub.Release(release(lease))
        await refusal(arbiter.channel.unary_unary("/gpuarbiter.v1.GpuArbiter/Renew")(b"\xff"))
        await arbiter.at_rest()
        await arbiter.snapshot()
        counted = samples(arbiter, "rpc_messages_total")
        assert counted == {
            ("received", "AcquireRequest"): 1,
            ("sent", "AcquireResponse.granted"): 1,
            ("sent", "AcquireResponse.ended"): 1,
            ("received", "ReleaseRequest"): 1,
            ("sent", "ReleaseResponse"): 1,
            ("received", "undecodable"): 1,
            ("received", "SnapshotRequest"): 1,
            ("sent", "SnapshotResponse"): 1,
        }


async def test_live_leases_are_shown_by_their_ids_where_that_is_asked_for():
    async with serving(monitored=True) as arbiter:
        take(arbiter, memory_used_bytes=0, processes=())
        arbiter.machine.trusted[100] = ProcessId(100, 1)
        named = holder("worker-0", namespace="speech", pod="asr-1", pid=100)
        _, lease = await arbiter.granted(acquire(holder=named))
        assert samples(arbiter, "lease_info") == samples(arbiter, "lease_used_bytes") == {}
        await arbiter.admin.UpdateConfig(admin.UpdateConfigRequest(patch_yaml="telemetry: {lease_info: true}"))
        take(arbiter, memory_used_bytes=GIB, processes=(GpuProcess(ProcessId(100, 1), GIB),))
        await arbiter.snapshot()
        uuid = "GPU-00000000"
        expected = ("gpu:0", uuid, "other", lease.lease_id, "speech", "asr-1", "worker-0", "100")
        assert samples(arbiter, "lease_info") == {expected: 1}
        assert samples(arbiter, "lease_used_bytes") == {("gpu:0", lease.lease_id): GIB}
        await arbiter.stub.Release(release(lease))
        assert samples(arbiter, "lease_info") == samples(arbiter, "lease_used_bytes") == {}


async def test_the_oldest_of_the_queue_and_of_the_leases_say_since_when():
    async with serving(gpus=2) as arbiter:
        started = wall()
        assert samples(arbiter, "oldest_lease_granted_timestamp_seconds") == {}
        _, lease = await arbiter.granted(acquire(gpu={"candidates": ["gpu:0"]}, max_hold=0))
        call, _ = await arbiter.queued(acquire(gpu={"candidates": ["gpu:0"]}, max_wait=60))
        await arbiter.queued(acquire(gpu={"candidates": ["gpu:0"]}, max_wait=60))
        for name in ("oldest_lease_granted_timestamp_seconds", "oldest_waiter_enqueued_timestamp_seconds"):
            shown = samples(arbiter, name)
            assert set(shown) == {("gpu:0",)}
            assert started - 0.001 <= shown["gpu:0",] <= wall()
        call.cancel()
        await arbiter.stub.Release(release(lease))


async def test_requests_far_back_in_a_long_queue_count_at_their_gpus_all_the_same():
    async with serving("queue_limit=2000", "limits.waiting_per_client=0") as arbiter:
        await arbiter.granted(acquire(max_hold=0))
        calls = [arbiter.runtime.open(lambda _effect: None) for _ in range(1_100)]
        for call in calls:
            arbiter.runtime.submit(Acquire(call, acquire_request(acquire(max_wait=60), Holder("x"), "")))
        await arbiter.snapshot()
        shown = samples(arbiter, "waiters")
        assert sum(shown.values()) == 1_100
        assert shown["gpu:0", "other", "queue_order"] >= 100
        for call in calls:
            arbiter.runtime.close(call, delivered=True)


async def test_what_the_policies_say_is_shown():
    policy = "policies.ASR={max_hold: 30s, wait_objective: 2s, hold_objective: 1s}"
    async with serving(policy, "defaults.max_hold=0s") as arbiter:
        assert value(arbiter, "lease_hold_limit_seconds", task="ASR") == 30
        assert value(arbiter, "lease_hold_limit_seconds", task="other") is None
        assert value(arbiter, "queue_wait_objective_seconds", task="ASR") == 2
        assert value(arbiter, "queue_wait_objective_seconds", task="other") == 10
        assert value(arbiter, "lease_hold_objective_seconds", task="ASR") == 1
        assert value(arbiter, "lease_hold_objective_seconds", task="other") is None


async def test_work_is_counted_by_device_and_result_with_its_extremes():
    async with serving("policies.NMT.priority=60") as arbiter:
        for device, result, items, took in (("GPU", "OK", 8, 2), ("CPU", "FAILED", 4, 6), ("GPU", "OK", 0, 1)):
            report = {"device": f"WORK_DEVICE_{device}", "result": f"WORK_RESULT_{result}", "work_items": items}
            report["duration"] = seconds(took)
            request = pb.ReportWorkRequest(task_type="NMT", holder=holder(), report=report)
            await arbiter.stub.ReportWork(request)
        assert samples(arbiter, "work_total") == {("NMT", "gpu", "ok"): 2, ("NMT", "cpu", "failed"): 1}
        figures = {"last_duration_seconds": 1, "min_duration_seconds": 1, "max_duration_seconds": 6, "last_items": 4}
        for name, expected in figures.items():
            assert samples(arbiter, f"work_{name}") == {("NMT",): expected}
        assert value(arbiter, "work_items_sum", task="NMT") == 12
        assert value(arbiter, "work_items_count", task="NMT") == 2
        assert value(arbiter, "work_duration_seconds_sum", task="NMT", device="gpu") == 3


async def test_a_report_that_says_nothing_counts_as_that_and_its_label_is_a_known_one():
    async with serving() as arbiter:
        assert value(arbiter, "work_total", task="other", device="gpu", result="unspecified") == 0
        await arbiter.stub.ReportWork(pb.ReportWorkRequest(task_type="X", holder=holder(), report={}))
        assert samples(arbiter, "work_total") == {("other", "gpu", "unspecified"): 1}


async def test_a_task_type_that_is_gone_leaves_what_it_counted_and_nothing_else():
    async with serving("policies.NMT.priority=60") as arbiter:
        _, lease = await arbiter.granted(acquire(task_type="NMT"))
        await arbiter.stub.Release(release(lease))
        await arbiter.admin.UpdateConfig(admin.UpdateConfigRequest(patch_yaml="policies: {NMT: null}"))
        assert value(arbiter, "rpc_messages_total", direction="sent", type="UpdateConfigResponse") == 1
        shown = [line for line in exposition(arbiter).splitlines() if 'task="NMT"' in line]
        assert 'gpu_arbiter_acquire_total{gpu="gpu:0",task="NMT",outcome="granted"} 1' in shown
        assert not [line for line in shown if line.endswith(" 0") and "_bucket" not in line and "_sum" not in line]


async def test_the_answer_to_a_yield_request_is_timed_from_the_first():
    async with serving() as arbiter:
        _, lease = await arbiter.granted(acquire(max_hold=0))
        await arbiter.admin.Revoke(admin.RevokeRequest(lease_id=lease.lease_id, grace=seconds(60)))
        await arbiter.advance(1.5)
        await arbiter.admin.Revoke(admin.RevokeRequest(lease_id=lease.lease_id, grace=seconds(30)))
        await arbiter.advance(1.5)
        await arbiter.stub.Release(release(lease))
        assert value(arbiter, "yield_response_seconds_count", task="other") == 1
        assert 3 <= value(arbiter, "yield_response_seconds_sum", task="other") < 6


async def test_the_peak_of_a_lease_is_counted_when_it_ends():
    async with serving(monitored=True) as arbiter:
        take(arbiter, memory_used_bytes=0, processes=())
        arbiter.machine.trusted[100] = ProcessId(100, 1)
        _, lease = await arbiter.granted(acquire(holder=holder(pid=100), gpu={"memory_bytes": GIB}))
        take(arbiter, memory_used_bytes=2 * GIB, processes=(GpuProcess(ProcessId(100, 1), 2 * GIB),))
        await arbiter.snapshot()
        assert samples(arbiter, "lease_memory_used_bytes") == {("gpu:0", "other", "nvml"): 2 * GIB}
        assert samples(arbiter, "memory_overuse_total") == {("gpu:0", "other"): 1}
        await arbiter.stub.Release(release(lease))
        assert value(arbiter, "lease_memory_peak_bytes_sum", task="other") == 2 * GIB
        assert samples(arbiter, "lease_memory_used_bytes") == {}


async def test_clients_that_are_gone_are_counted_by_what_they_left():
    async with serving("defaults.disconnect_grace=1s", "cooldown=0s") as arbiter:
        holding, _ = await arbiter.granted(acquire("named", max_hold=0))
        holding.cancel()
        await async_until(lambda: samples(arbiter, "client_disconnects_total") == {("holding",): 1})
        await arbiter.advance(1.0)
        assert samples(arbiter, "client_disconnects_total") == {("holding",): 1, ("expired",): 1}
        arbiter.machine.trusted[100] = ProcessId(100, 1)
        await arbiter.granted(acquire("detached", holder=holder(pid=100), detached=True, ttl=60))
        arbiter.runtime.submit(ProcessExited(ProcessId(100, 1)))
        await arbiter.snapshot()
        assert samples(arbiter, "client_disconnects_total")["process_died",] == 1


async def test_calls_of_the_driver_that_failed_are_counted_by_call_and_error():
    async with serving() as arbiter:
        assert samples(arbiter, "nvml_errors_total") == {}
        arbiter.nvml_errors["nvmlDeviceGetPowerUsage", "NotSupported"] = 3
        assert samples(arbiter, "nvml_errors_total") == {("nvmlDeviceGetPowerUsage", "NotSupported"): 3}


async def test_a_task_type_that_is_configured_later_is_told_apart_from_then_on():
    async with serving(gpus=2) as arbiter:
        await arbiter.granted(acquire(task_type="NMT"))
        await arbiter.admin.UpdateConfig(admin.UpdateConfigRequest(patch_yaml="policies: {NMT: {priority: 80}}"))
        await arbiter.granted(acquire(task_type="NMT"))
        assert {task for _, task, _ in samples(arbiter, "acquire_total")} == {"other", "NMT"}
        assert set(samples(arbiter, "leases")) == {("gpu:0", "NMT", "held"), ("gpu:1", "NMT", "held")}


# -- the GPUs --


async def test_the_ledger_of_a_gpu_is_shown():
    async with serving(monitored=True) as arbiter:
        take(arbiter, memory_used_bytes=3 * GIB, memory_free_bytes=21 * GIB)
        await arbiter.granted(acquire(gpu={"memory_bytes": GIB}))
        view = arbiter.runtime.snapshot().gpus[0]
        total, headroom = 24 * GIB, view.headroom_bytes
        assert value(arbiter, "gpu_memory_total_bytes", gpu="gpu:0") == total
        assert value(arbiter, "memory_limit_bytes", gpu="gpu:0") == total - headroom
        assert value(arbiter, "memory_committed_bytes", gpu="gpu:0") == GIB
        assert value(arbiter, "memory_unleased_bytes", gpu="gpu:0") == view.unleased_bytes
        admissible = value(arbiter, "memory_admissible_bytes", gpu="gpu:0")
        assert admissible == total - headroom - view.unleased_bytes - GIB
        assert value(arbiter, "gpu_memory_used_bytes", gpu="gpu:0") == 3 * GIB
        assert value(arbiter, "gpu_up", gpu="gpu:0") == 1
        facts = {
            "gpu": "gpu:0",
            "gpu_uuid": "GPU-00000000",
            "gpu_index": "0",
            "gpu_name": "Test GPU",
            "driver_version": "",
            "source": "configured",
        }
        assert value(arbiter, "gpu_info", **facts) == 1


READINGS = (
    "gpu_memory_used_bytes",
    "gpu_memory_free_bytes",
    "gpu_utilization_ratio",
    "gpu_memory_bandwidth_ratio",
    "gpu_power_watts",
    "gpu_power_limit_watts",
    "gpu_temperature_celsius",
    "gpu_sm_clock_hertz",
)


async def test_a_reading_is_shown_while_it_is_current_and_absent_afterwards():
    async with serving(monitored=True) as arbiter:
        figures: dict[str, Any] = {name.removeprefix("gpu_"): 0.5 for name in READINGS}
        figures["memory_used_bytes"] = figures["memory_free_bytes"] = figures["sm_clock_hertz"] = GIB

        def shown() -> set[str]:
            return {name for name in READINGS if value(arbiter, name, gpu="gpu:0") is not None}

        assert shown() == set(), "before the first reading"
        take(arbiter, **figures)
        await arbiter.snapshot()
        assert shown() == set(READINGS)
        assert value(arbiter, "gpu_utilization_ratio", gpu="gpu:0") == 0.5
        await arbiter.advance(2.0)
        assert shown() == set(), "once it is stale"
        assert value(arbiter, "gpu_up", gpu="gpu:0") == 1
        take(arbiter, **figures)
        await arbiter.snapshot()
        assert shown() == set(READINGS)
        arbiter.runtime.submit(GpuFailed("gpu:0", "gone"))
        await arbiter.snapshot()
        assert shown() == set(), "once the GPU is lost"
        assert value(arbiter, "gpu_up", gpu="gpu:0") == 0
        assert value(arbiter, "memory_limit_bytes", gpu="gpu:0") is not None
        for name in ("memory_unleased_bytes", "memory_admissible_bytes", "memory_overcommitted"):
            assert value(arbiter, name, gpu="gpu:0") is None, name


async def test_what_a_gpu_does_not_report_is_absent_not_zero():
    async with serving(monitored=True) as arbiter:
        take(arbiter, memory_used_bytes=0)
        await arbiter.snapshot()
        assert value(arbiter, "gpu_memory_used_bytes", gpu="gpu:0") == 0
        assert value(arbiter, "gpu_power_watts", gpu="gpu:0") is None
        assert samples(arbiter, "gpu_processes") == {}


async def test_processes_are_counted_with_and_without_a_lease():
    mine, foreign = ProcessId(100, 1), ProcessId(200, 2)
    async with serving(monitored=True) as arbiter:
        arbiter.machine.trusted[100] = mine
        take(arbiter, memory_used_bytes=0, processes=())
        await arbiter.granted(acquire(holder=holder(pid=100)))
        take(arbiter, memory_used_bytes=GIB, processes=(GpuProcess(mine, GIB), GpuProcess(foreign, None)))
        await arbiter.snapshot()
        assert samples(arbiter, "gpu_processes") == {("gpu:0", "yes"): 1, ("gpu:0", "no"): 1}


async def test_the_driver_is_up_or_not():
    async with serving() as arbiter:
        for up in (True, False):
            arbiter.runtime.submit(DriverChanged(up=up))
            await arbiter.snapshot()
            assert value(arbiter, "nvml_up") == float(up)


async def test_looks_at_gpus_are_timed():
    async with serving() as arbiter:
        arbiter.metrics.observe_poll(0.002)
        assert value(arbiter, "nvml_poll_seconds_count") == 1
        assert value(arbiter, "nvml_poll_seconds_bucket", le="0.0025") == 1
        assert value(arbiter, "nvml_poll_seconds_bucket", le="0.001") == 0


async def test_two_arbiters_in_one_process_share_no_figures():
    async with serving() as first, serving() as second:
        await second.granted(acquire())
        assert samples(first, "leases") == samples(first, "acquire_total") == {}
        assert samples(second, "leases")
