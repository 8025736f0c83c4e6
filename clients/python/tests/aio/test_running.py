"""`run`: on the GPU, or on the CPU where the arbiter says so, which is then told of it."""

import logging
import random
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from fakes.polling import async_until
from fakes.scripted_arbiter import Call, ScriptedArbiter, refuse
from gpuarbiter import (
    AsyncArbiter,
    AsyncLease,
    ConsistencyCheck,
    FallbackToCpu,
    Mismatch,
    Skipped,
    WorkContext,
    current_lease,
)
from gpuarbiter.v1 import lease_pb2


def declining(decision: str):
    def script(call: Call):
        yield call.declined(decision)

    return script


async def on_gpu(lease: AsyncLease) -> str:
    return f"gpu {lease.lease_id}"


async def on_cpu() -> str:
    return "cpu"


def raising(error: BaseException) -> Callable[..., Any]:
    async def work(*_given: object) -> None:
        raise error

    return work


async def test_work_runs_under_a_lease(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async def work(lease: AsyncLease) -> str:
        assert current_lease() is lease
        assert not lease.released
        return lease.visible_devices

    assert (
        await arbiter.run("ASR", work, cpu=on_cpu, memory="6GiB")
        == scripted.calls[0].granted().granted.lease.visible_devices
    )
    with pytest.raises(LookupError, match="no lease here"):
        current_lease()
    assert current_lease(None) is None
    assert scripted.seen["Acquire"][0].gpu.memory_bytes == 6 * 2**30
    assert scripted.releases(1)[0].report.result == lease_pb2.WORK_RESULT_OK
    assert scripted.seen["ReportWork"] == []


async def test_what_raises_on_the_gpu_is_reported_with_the_release(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    with pytest.raises(ZeroDivisionError):
        await arbiter.run("ASR", raising(ZeroDivisionError()), cpu=on_cpu)
    assert scripted.releases(1)[0].report.result == lease_pb2.WORK_RESULT_FAILED


async def test_on_the_cpu_and_told_of(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async def work() -> object:
        return current_lease(None)

    scripted.scripts.append(declining("FALLBACK_CPU"))
    context = WorkContext(session_id="s")
    assert await arbiter.run("ASR", on_gpu, cpu=work, context=context, busy_policy="FALLBACK_CPU") is None
    (told,) = scripted.seen["ReportWork"]
    assert told.task_type == "ASR"
    assert told.context.session_id == "s"
    assert told.holder.client_id
    assert told.report.device == lease_pb2.WORK_DEVICE_CPU
    assert told.report.result == lease_pb2.WORK_RESULT_OK
    assert told.report.HasField("duration")


@pytest.mark.parametrize(
    ("error", "result"),
    [(ZeroDivisionError(), "FAILED"), (KeyboardInterrupt(), "CANCELLED"), (SystemExit(0), "OK")],
)
async def test_what_raises_on_the_cpu_is_told_of_and_raised(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, error: BaseException, result: str
):
    scripted.scripts.append(declining("FALLBACK_CPU"))
    with pytest.raises(type(error)) as caught:
        await arbiter.run("ASR", on_gpu, cpu=raising(error))
    assert caught.value is error
    assert scripted.seen["ReportWork"][0].report.result == lease_pb2.WorkResult.Value(f"WORK_RESULT_{result}")


async def test_a_report_that_fails_costs_nothing(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, caplog: pytest.LogCaptureFixture
):
    scripted.scripts.append(declining("FALLBACK_CPU"))
    scripted.answers["ReportWork"] = lambda _request, context: refuse(context, grpc.StatusCode.UNAVAILABLE, "SHUTDOWN")
    assert await arbiter.run("ASR", on_gpu, cpu=on_cpu) == "cpu"
    assert "was not told of work on the CPU" in caplog.text


async def test_declines_without_an_answer_of_the_callers_are_raised(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    scripted.scripts += [declining(each) for each in ("FALLBACK_CPU", "FALLBACK_CPU", "SKIP", "SKIP", "SKIP")]
    with pytest.raises(FallbackToCpu):
        await arbiter.run("ASR", on_gpu)
    with pytest.raises(FallbackToCpu):
        await arbiter.run("ASR", on_gpu, on_skip="skipped")
    with pytest.raises(Skipped):
        await arbiter.run("ASR", on_gpu, cpu=on_cpu)
    assert await arbiter.run("ASR", on_gpu, cpu=on_cpu, on_skip=None) is None
    assert await arbiter.run("ASR", on_gpu, on_skip="skipped") == "skipped"
    assert scripted.seen["ReportWork"] == []


async def test_both_are_compared_now_and_then(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    mismatches: list[Mismatch] = []
    under: list[object] = []

    async def differing() -> str:
        under.append(current_lease(None))
        # The GPU is free again, though this still goes on.
        await async_until(lambda: len(scripted.seen["Release"]) == len(scripted.seen["Acquire"]))
        return "other"

    async def note(mismatch: Mismatch) -> None:
        mismatches.append(mismatch)

    chosen = random.Random(7)
    expected = sum(chosen.random() < 0.25 for _ in range(40))
    check = ConsistencyCheck(0.25, on_mismatch=note, random=random.Random(7))
    for _ in range(40):
        assert await arbiter.run("ASR", on_gpu, cpu=differing, consistency=check) == "gpu lease-1"
    assert 0 < expected < 40
    assert (check.counts.checked, check.counts.mismatched) == (expected, expected)
    assert under == [None] * expected
    assert mismatches == [Mismatch("ASR", "gpu lease-1", "other")] * expected
    assert scripted.seen["ReportWork"] == []  # it took nobody's place on a GPU


async def test_a_check_changes_nothing(arbiter: AsyncArbiter, caplog: pytest.LogCaptureFixture):
    def wrong(_gpu: object, _cpu: object) -> bool:
        raise ArithmeticError("cannot compare")

    caplog.set_level(logging.WARNING, "gpuarbiter")
    always = ConsistencyCheck(1, on_mismatch=raising(ValueError("callback")))
    broken = ConsistencyCheck(1, wrong)
    assert await arbiter.run("ASR", on_gpu, cpu=raising(OSError("no CPU")), consistency=always) == "gpu lease-1"
    assert await arbiter.run("ASR", on_gpu, cpu=on_cpu, consistency=always) == "gpu lease-1"
    assert await arbiter.run("ASR", on_gpu, cpu=on_cpu, consistency=broken) == "gpu lease-1"
    assert (always.counts.checked, always.counts.failed, always.counts.mismatched) == (2, 1, 1)
    assert (broken.counts.checked, broken.counts.failed) == (1, 1)
    for said in ("no CPU", "the CPU's result is not the GPU's (1 of 2", "on_mismatch raised", "cannot compare"):
        assert said in caplog.text


async def test_what_fell_back_or_failed_is_not_compared(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    check = ConsistencyCheck(1)
    scripted.scripts.append(declining("FALLBACK_CPU"))
    assert await arbiter.run("ASR", on_gpu, cpu=on_cpu, consistency=check) == "cpu"
    with pytest.raises(ZeroDivisionError):
        await arbiter.run("ASR", raising(ZeroDivisionError()), cpu=on_cpu, consistency=check)
    assert check.counts.checked == 0


async def test_a_check_needs_something_to_compare_with(arbiter: AsyncArbiter):
    unchecked: Any = arbiter.run
    with pytest.raises(ValueError, match="needs a cpu function"):
        await unchecked("ASR", on_gpu, consistency=ConsistencyCheck())
