"""The public API as programs use it: type checkers must accept each line, and infer what `assert_type` says.

Never run; `make check` reads it with mypy and with pyright, both at their strictest.
"""

import asyncio
from collections.abc import MutableMapping
from datetime import timedelta
from typing import Any, assert_type

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware

from gpuarbiter import (
    Arbiter,
    ArbiterUnavailable,
    AsyncArbiter,
    AsyncLease,
    ConsistencyCheck,
    FallbackToCpu,
    Lease,
    Mismatch,
    Skipped,
    YieldRequest,
    current_lease,
    default_arbiter,
    default_async_arbiter,
    gpu_task,
    torch_memory,
)
from gpuarbiter.asgi import GpuLeaseMiddleware, GpuRoute
from gpuarbiter.pipeline import JobResult, Pipeline, Stage, StageRun, State


def yielding(lease: Lease, request: YieldRequest) -> None:
    print(lease.lease_id, request.reason, request.remaining)


def lease_for_a_block(arbiter: Arbiter) -> None:
    with arbiter.lease("ASR", memory="6GiB", max_wait="3s", on_yield=yielding) as lease:
        assert_type(lease, Lease)
        assert_type(lease.visible_devices, str)
        assert_type(lease.unmanaged, bool)
        lease.note_peak("2GiB")


def outcome_by_value(arbiter: Arbiter) -> str:
    match arbiter.acquire("ASR", busy_policy="FALLBACK_CPU"):
        case Lease() as lease:
            with lease:
                return lease.visible_devices
        case FallbackToCpu():
            return "cpu"
        case Skipped(reason=reason):
            return reason


async def asynchronously(arbiter: AsyncArbiter) -> None:
    async with arbiter.lease("ASR") as lease:
        assert_type(lease, AsyncLease)
        await lease.renew(extend_hold="30s")


def settings() -> Arbiter:
    return Arbiter("unix:/run/arbiter.sock", token="secret", on_unavailable="proceed")


# -- the decorator ---------------------------------------------------------------------------------


@gpu_task("ASR", memory="6GiB")
def transcribe(audio: bytes, language: str = "en", *, lease: Lease | None = None) -> str:
    assert lease is not None
    return f"{len(audio)} {language} {lease.visible_devices} {current_lease().lease_id}"


def on_cpu(audio: bytes) -> list[str]:
    return [str(len(audio))]


async def on_cpu_async(audio: bytes) -> list[str]:
    return [str(len(audio))]


@gpu_task("ASR", cpu=on_cpu, busy_policy="FALLBACK_CPU", consistency=ConsistencyCheck(0.01, "exact"))
def falls_back(audio: bytes) -> list[str]:
    return [str(audio)]


@gpu_task("REPAIR", on_skip=None, busy_policy="SKIP")
def may_skip(text: str) -> str:
    return text


@gpu_task("ASR")
async def transcribe_async(audio: bytes) -> str:
    return str(audio)


@gpu_task("ASR", cpu=on_cpu_async, on_skip=0, arbiter=AsyncArbiter())
async def falls_back_async(audio: bytes) -> list[str]:
    return [str(audio)]


@gpu_task("REPAIR", on_skip=None)
async def may_skip_async(text: str) -> str:
    return text


class Model:
    @gpu_task("LLM")
    def answer(self, question: str) -> int:
        return len(question)

    @gpu_task("LLM", on_skip="")
    async def answer_async(self, question: str) -> int:
        return len(question)

    @staticmethod
    @gpu_task("LLM")
    def size() -> int:
        return 7


async def decorated(audio: bytes, model: Model, lease: Lease) -> None:
    assert_type(transcribe(audio, "de"), str)
    assert_type(transcribe(audio, lease=lease), str)
    assert_type(falls_back(audio), list[str])
    assert_type(may_skip("text"), str | None)
    assert_type(await transcribe_async(audio), str)
    assert_type(await falls_back_async(audio), list[str] | int)
    assert_type(await may_skip_async("text"), str | None)
    assert_type(model.answer("why?"), int)
    assert_type(await model.answer_async(question="why?"), int | str)
    assert_type(Model.size(), int)
    transcribe("no bytes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    falls_back()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


# -- functions without a decorator -----------------------------------------------------------------


async def told(mismatch: Mismatch) -> None:
    print(mismatch.task_type, mismatch.gpu_result, mismatch.cpu_result)


def close_enough(gpu: float, cpu: float) -> bool:
    return abs(gpu - cpu) < 1


async def run(arbiter: Arbiter, asynchronous: AsyncArbiter, audio: bytes) -> None:
    assert_type(arbiter.run("ASR", lambda lease: lease.visible_devices), str)
    assert_type(arbiter.run("ASR", lambda lease: lease.fencing_token, cpu=lambda: 0), int)
    assert_type(default_arbiter().run("ASR", lambda _lease: audio, on_skip=None, memory="1GiB"), bytes | None)
    check = ConsistencyCheck(0.1, close_enough, on_mismatch=told)
    gave = await asynchronous.run(
        "ASR",
        lambda _lease: transcribe_async(audio),
        cpu=lambda: asyncio.to_thread(on_cpu, audio),
        on_skip=None,
        consistency=check,
    )
    assert_type(gave, str | list[str] | None)
    assert_type(check.counts.mismatched, int)
    try:
        await default_async_arbiter().run("ASR", lambda _lease: transcribe_async(audio))
    except ArbiterUnavailable as failure:
        assert_type(failure.transient, bool)


def measured(arbiter: Arbiter) -> int:
    with arbiter.lease("ASR") as lease, torch_memory(lease, devices=[0, "cuda:1"]) as memory:
        pass
    with torch_memory():
        return memory.peak_bytes


# -- the middleware --------------------------------------------------------------------------------


def by_header(scope: MutableMapping[str, Any]) -> bool:
    return (b"x-gpu", b"1") in scope["headers"]


async def lost(lease: AsyncLease) -> None:
    print(lease.lost_reason)


ROUTES = [
    GpuRoute("ASR", "/transcribe", methods=["POST"], memory="6GiB", max_wait="2s", on_lost=lost),
    GpuRoute(
        "LLM", "/v1/*", when=by_header, per_request=lambda scope: {"priority": len(scope["headers"])}, cpu_fallback=True
    ),
    GpuRoute("TALK", "/talk", websocket=True, cancel_on_disconnect=True),
]


async def plain(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    print(scope, receive, send)


def applications() -> tuple[FastAPI, Starlette, GpuLeaseMiddleware]:
    api = FastAPI()
    api.add_middleware(GpuLeaseMiddleware, routes=ROUTES)
    site = Starlette(middleware=[Middleware(GpuLeaseMiddleware, routes=ROUTES, detail=False)])
    wrapped = GpuLeaseMiddleware(plain, ROUTES, arbiter=AsyncArbiter, buffer="1MiB")
    GpuLeaseMiddleware(api, ROUTES, arbiter=AsyncArbiter("unix:/run/arbiter.sock"))
    GpuRoute("ASR", memroy="6GiB")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    api.add_middleware(GpuLeaseMiddleware, paths=[])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    return api, site, wrapped


# -- pipelines -------------------------------------------------------------------------------------


async def translate(text: str, run: StageRun) -> str:
    return f"{text} {run.job_id} {run.lease.visible_devices if run.lease else 'cpu'}"


def hear(result: JobResult) -> None:
    print(result.utterance_index, result.value, result.late)


async def pipelines(arbiter: AsyncArbiter) -> timedelta:
    stages = [
        Stage("SPLIT", translate, gpu=False, concurrency=8),
        Stage(
            "NMT", translate, cpu=translate, lease={"memory": "4GiB", "max_wait": 3}, timeout="5s", on_failure="skip"
        ),
    ]
    Stage("NMT", translate, on_failure="retry")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async with Pipeline(arbiter, stages, hold_back=None, max_in_flight=8, on_timeout=print) as pipeline:
        async with pipeline.session("call-7", on_result=hear) as session:
            job = await session.submit("hello", utterance_index=3)
            assert_type(job.stages, dict[str, State])
            assert_type(job.cancel(), bool)
            assert_type(await job, JobResult)
        return pipeline.statistics().stages["NMT"].waited
