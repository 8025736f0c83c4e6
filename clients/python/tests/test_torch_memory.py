"""PyTorch's own figures, told at release; a stand-in takes PyTorch's place."""

import logging
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fakes.scripted_arbiter import ScriptedArbiter
from gpuarbiter import Arbiter, AsyncArbiter, WorkReport, gpu_task, torch_memory

GIB = 2**30


class Cuda:
    """torch.cuda, as far as it is used, with two devices."""

    def __init__(self) -> None:
        self.now = [0, 0]
        self.peak = [0, 0]
        self.initialized = True
        self.broken = False

    def takes(self, device: int, size: int) -> None:
        self.now[device] += size
        self.peak[device] = max(self.peak[device], self.now[device])

    def is_initialized(self) -> bool:
        return self.initialized

    def device_count(self) -> int:
        assert self.initialized, "this would start CUDA"
        return 2

    def reset_peak_memory_stats(self, device: Any) -> None:
        self._check()
        self.peak[self._index(device)] = self.now[self._index(device)]

    def max_memory_reserved(self, device: Any) -> int:
        self._check()
        return self.peak[self._index(device)]

    def _index(self, device: Any) -> int:
        return int(str(device).removeprefix("cuda:"))

    def _check(self) -> None:
        if self.broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    stand_in: Any = ModuleType("torch")
    stand_in.cuda = Cuda()
    monkeypatch.setitem(sys.modules, "torch", stand_in)
    made: Cuda = stand_in.cuda
    return made


@pytest.fixture
def arbiter(scripted: ScriptedArbiter) -> Iterator[Arbiter]:
    with Arbiter(scripted.address) as client:
        yield client


def told(scripted: ScriptedArbiter, number: int = 1) -> list[int]:
    return [each.report.peak_memory_bytes for each in scripted.releases(number)]


def test_the_highest_of_all_devices_counts_and_what_was_before_does_not(
    scripted: ScriptedArbiter, arbiter: Arbiter, cuda: Cuda
):
    cuda.takes(0, 9 * GIB)
    cuda.takes(0, -8 * GIB)
    with arbiter.lease("ASR") as lease, torch_memory(lease) as measured:
        cuda.takes(0, GIB)
        cuda.takes(1, 3 * GIB)
        cuda.takes(1, -2 * GIB)
    assert measured.peak_bytes == 3 * GIB
    assert told(scripted) == [3 * GIB]


def test_only_the_devices_that_are_named(scripted: ScriptedArbiter, arbiter: Arbiter, cuda: Cuda):
    with arbiter.lease("ASR") as lease, torch_memory(lease, devices=(each for each in ["cuda:0"])):
        cuda.takes(0, GIB)
        cuda.takes(1, 3 * GIB)
    assert told(scripted) == [GIB]


async def test_the_current_lease_is_told_in_both_worlds(scripted: ScriptedArbiter, arbiter: Arbiter, cuda: Cuda):
    async with AsyncArbiter(scripted.address) as asynchronous:

        @gpu_task("ASR", arbiter=arbiter)
        def work() -> None:
            with torch_memory():
                cuda.takes(0, GIB)

        @gpu_task("ASR", arbiter=asynchronous)
        async def later() -> None:
            with torch_memory():
                cuda.takes(0, GIB)

        work()
        await later()
    assert told(scripted, 2) == [GIB, 2 * GIB]


def test_what_the_program_reports_itself_counts_more(scripted: ScriptedArbiter, arbiter: Arbiter, cuda: Cuda):
    with arbiter.lease("ASR") as lease, torch_memory(lease):
        cuda.takes(0, GIB)
        lease.report(WorkReport(peak_memory="2GiB", work_items=1))
    assert told(scripted) == [2 * GIB]


def test_blocks_at_a_time_do_not_cut_off_each_others_peak(cuda: Cuda):
    with torch_memory() as outer:
        cuda.takes(0, 4 * GIB)
        cuda.takes(0, -4 * GIB)
        with torch_memory() as inner:
            cuda.takes(0, GIB)
    assert (outer.peak_bytes, inner.peak_bytes) == (4 * GIB, 4 * GIB)
    with torch_memory() as later:
        pass
    assert later.peak_bytes == GIB


def test_nothing_without_pytorch(scripted: ScriptedArbiter, arbiter: Arbiter, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with arbiter.lease("ASR") as lease, torch_memory(lease) as measured:
        pass
    assert measured.peak_bytes == 0
    assert told(scripted) == [0]
    assert "torch" not in sys.modules


def test_pytorch_that_has_not_touched_cuda_is_left_alone(
    arbiter: Arbiter, cuda: Cuda, caplog: pytest.LogCaptureFixture
):
    cuda.initialized = False
    with arbiter.lease("ASR") as lease, torch_memory(lease) as measured:
        pass
    assert measured.peak_bytes == 0
    assert caplog.records == []


def test_pytorch_that_comes_in_the_block_is_seen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with torch_memory() as measured:
        late = Cuda()
        late.takes(1, GIB)
        monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=late))  # type: ignore[arg-type]
    assert measured.peak_bytes == GIB


def test_cuda_that_is_broken_hides_nothing(
    scripted: ScriptedArbiter, arbiter: Arbiter, cuda: Cuda, caplog: pytest.LogCaptureFixture
):
    cuda.broken = True
    with (
        pytest.raises(ZeroDivisionError),
        arbiter.lease("ASR") as lease,
        torch_memory(lease),
    ):
        raise ZeroDivisionError
    assert told(scripted) == [0]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "illegal memory access" in caplog.text
    with torch_memory():  # the count of the blocks that are entered is right
        cuda.broken = False
