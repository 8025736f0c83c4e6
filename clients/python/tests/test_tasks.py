"""The decorator, on functions of every kind, and the Arbiter of the process."""

import asyncio
import inspect
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from fakes.scripted_arbiter import Call, ScriptedArbiter
from gpuarbiter import (
    Arbiter,
    AsyncArbiter,
    AsyncLease,
    ConsistencyCheck,
    Lease,
    Skipped,
    current_lease,
    default_arbiter,
    default_async_arbiter,
    gpu_task,
)


@pytest.fixture
def arbiter(scripted: ScriptedArbiter) -> Iterator[Arbiter]:
    with Arbiter(scripted.address) as client:
        yield client


@pytest.fixture
async def asynchronous(scripted: ScriptedArbiter) -> AsyncIterator[AsyncArbiter]:
    async with AsyncArbiter(scripted.address) as client:
        yield client


def declining(decision: str):
    def script(call: Call):
        yield call.declined(decision)

    return script


def test_a_function_runs_under_a_lease_that_it_can_see(scripted: ScriptedArbiter, arbiter: Arbiter):
    @gpu_task("ASR", arbiter=arbiter, memory="6GiB")
    def work(text: str, *, times: int = 2, lease: Lease | None = None) -> str:
        """Says it."""
        assert lease is current_lease()
        assert lease.lease_id == "lease-1"
        return text * times

    assert work("a", times=3) == "aaa"
    assert work("a") == "aa"
    assert (work.__name__, work.__doc__) == ("work", "Says it.")
    assert str(inspect.signature(work)) == "(text: str, *, times: int = 2) -> str"
    assert len(scripted.releases(2)) == 2
    assert scripted.seen["Acquire"][0].gpu.memory_bytes == 6 * 2**30


async def test_a_coroutine_function_too(scripted: ScriptedArbiter, asynchronous: AsyncArbiter):
    @gpu_task("ASR", arbiter=asynchronous)
    async def work(text: str, lease: AsyncLease | None = None) -> str:
        assert lease is current_lease()
        assert await asyncio.to_thread(current_lease) is lease
        return text

    assert inspect.iscoroutinefunction(work)
    assert await work("a") == "a"
    assert len(scripted.releases(1)) == 1


async def test_neighbours_do_not_see_each_others_lease(asynchronous: AsyncArbiter):
    @gpu_task("ASR", arbiter=asynchronous)
    async def work(number: int) -> tuple[int, str]:
        await asyncio.sleep(0)
        return number, current_lease().request_id

    done = await asyncio.gather(*(work(number) for number in range(8)))
    assert [number for number, _ in done] == list(range(8))
    assert len({request_id for _, request_id in done}) == 8
    assert current_lease(None) is None


async def test_methods(arbiter: Arbiter, asynchronous: AsyncArbiter):
    class Model:
        name = "m"

        @gpu_task("LLM", arbiter=arbiter)
        def answer(self, question: str, lease: Lease | None = None) -> str:
            assert lease is not None
            return f"{self.name} {question}"

        @gpu_task("LLM", arbiter=asynchronous)
        async def later(self, question: str) -> str:
            return f"{self.name} {question}"

        @classmethod
        @gpu_task("LLM", arbiter=arbiter)
        def named(cls) -> str:
            return cls.name

        @staticmethod
        @gpu_task("LLM", arbiter=arbiter)
        def alone() -> str:
            return current_lease().lease_id

    model = Model()
    assert model.answer("q") == "m q"
    assert await model.later("q") == "m q"
    assert (Model.named(), model.named(), Model.alone()) == ("m", "m", "lease-1")


async def test_who_brings_a_lease_asks_for_none(
    scripted: ScriptedArbiter, arbiter: Arbiter, asynchronous: AsyncArbiter
):
    @gpu_task("NMT", arbiter=arbiter)
    def inner(*, lease: Lease | None = None) -> Lease | None:
        assert current_lease() is lease
        return lease

    @gpu_task("ASR", arbiter=arbiter)
    def outer(*, lease: Lease | None = None) -> bool:
        return inner(lease=lease) is lease

    @gpu_task("NMT", arbiter=asynchronous)
    async def later(*, lease: AsyncLease | None = None) -> AsyncLease | None:
        assert current_lease() is lease
        return lease

    assert outer()
    assert len(scripted.seen["Acquire"]) == 1
    async with asynchronous.lease("ASR") as lease:
        assert await later(lease=lease) is lease
    assert len(scripted.seen["Acquire"]) == 2


async def test_on_the_cpu_with_the_same_arguments(
    scripted: ScriptedArbiter, arbiter: Arbiter, asynchronous: AsyncArbiter
):
    def on_cpu(text: str, *, times: int) -> str:
        return f"cpu {text * times}"

    async def on_cpu_later(text: str) -> str:
        return f"cpu {text}"

    @gpu_task("ASR", arbiter=arbiter, cpu=on_cpu, busy_policy="FALLBACK_CPU")
    def work(text: str, *, times: int, lease: Lease | None = None) -> str:
        raise AssertionError(text, times, lease)

    @gpu_task("ASR", arbiter=asynchronous, cpu=on_cpu_later)
    async def later(text: str) -> str:
        raise AssertionError(text)

    scripted.scripts += [declining("FALLBACK_CPU")] * 2
    assert work("a", times=2) == "cpu aa"
    assert await later("b") == "cpu b"
    assert [each.task_type for each in scripted.seen["ReportWork"]] == ["ASR", "ASR"]


def test_a_skip_is_raised_or_returned(scripted: ScriptedArbiter, arbiter: Arbiter):
    def work() -> str:
        raise AssertionError

    scripted.scripts += [declining("SKIP")] * 2
    with pytest.raises(Skipped):
        gpu_task("ASR", arbiter=arbiter)(work)()
    assert gpu_task("ASR", arbiter=arbiter, on_skip=None)(work)() is None


def test_a_sample_is_compared(arbiter: Arbiter):
    check = ConsistencyCheck(1)

    @gpu_task("ASR", arbiter=arbiter, cpu=lambda number: number + number % 2, consistency=check)
    def work(number: int) -> int:
        return number

    assert [work(number) for number in range(4)] == [0, 1, 2, 3]
    assert (check.counts.matched, check.counts.mismatched) == (2, 2)


def test_what_cannot_be_is_said_where_it_is_written(arbiter: Arbiter):
    asynchronous = AsyncArbiter("127.0.0.1:1")
    anything: Any = gpu_task

    def generator():
        yield

    async def later() -> None: ...

    for function in (generator, classmethod(generator), int, 7):
        with pytest.raises(TypeError, match="gpu_task"):
            anything("ASR")(function)
    with pytest.raises(TypeError, match="needs an AsyncArbiter, not Arbiter"):
        gpu_task("ASR", arbiter=arbiter)(later)
    with pytest.raises(TypeError, match="needs an Arbiter, not AsyncArbiter"):
        gpu_task("ASR", arbiter=asynchronous)(lambda: None)
    with pytest.raises(TypeError, match="unexpected keyword argument 'memroy'"):
        anything("ASR", memroy="6GiB")
    with pytest.raises(ValueError, match="needs a cpu function"):
        anything("ASR", consistency=ConsistencyCheck())


def test_one_default_for_all_threads(scripted: ScriptedArbiter, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GPU_ARBITER_ADDRESS", scripted.address)
    found: list[Arbiter] = []
    threads = [threading.Thread(target=lambda: found.append(default_arbiter())) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len({id(each) for each in found}) == 1
    assert found[0].address == scripted.address
    found[0].close()
    assert default_arbiter() is not found[0]
    default_arbiter().close()


async def test_one_default_for_a_loop(scripted: ScriptedArbiter, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GPU_ARBITER_ADDRESS", scripted.address)
    mine = default_async_arbiter()
    assert default_async_arbiter() is mine

    async def another() -> AsyncArbiter:
        return default_async_arbiter()

    theirs = await asyncio.to_thread(asyncio.run, another())
    assert theirs is not mine
    await mine.close()
    assert default_async_arbiter() is not mine
    await default_async_arbiter().close()


PROGRAM = """
import asyncio, sys
from gpuarbiter import current_lease, gpu_task

@gpu_task("ASR")
def work():
    return current_lease().lease_id

@gpu_task("ASR")
async def later():
    return current_lease().lease_id

print(work(), *("gpuarbiter._aio.arbiter" in sys.modules,))
for _ in range(2):
    print(asyncio.run(later()))
print(work())
"""


def test_a_program_that_makes_no_arbiter(scripted: ScriptedArbiter):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env={**os.environ, "GPU_ARBITER_ADDRESS": scripted.address, "GRPC_VERBOSITY": "ERROR"},
    )
    assert (done.stdout, done.stderr) == ("lease-1 False\nlease-1\nlease-1\nlease-1\n", "")
    # At the end of each loop it is asked for again where the answer was not there yet.
    assert 4 <= len(scripted.releases(4)) <= 6
