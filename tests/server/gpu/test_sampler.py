import itertools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.nvml import GIB, FakeNvml
from gpuarbiter_server.core.events import DescendantsSeen, DriverChanged, GpuFailed, ReadingTaken
from gpuarbiter_server.core.model import GpuProcess, GpuReading, GpuSpec, ProcessId
from gpuarbiter_server.gpu.backend import DriverGoneError, GpuLostError
from gpuarbiter_server.gpu.nvml import NvmlBackend
from gpuarbiter_server.gpu.procfs import identify
from gpuarbiter_server.gpu.sampler import Sampler, SamplerEvent, _Driver

Make = Callable[..., Any]

US = os.getpid()
NEVER = 1000.0
SPECS = [GpuSpec("gpu:0", 0, GIB), GpuSpec("gpu:1", 1, GIB), GpuSpec("dark", 2, GIB, monitored=False)]


class Backend:
    """Answers as it is told: a reading, an error, or the word of `gate` when it is closed."""

    def __init__(self) -> None:
        self.answers: dict[str, GpuReading | Exception] = {}
        self.asked: dict[str, int] = {}
        self.gates: dict[str, threading.Event] = {}

    def open(self) -> list[GpuSpec]:
        return SPECS

    def read(self, spec: GpuSpec) -> GpuReading:
        self.asked[spec.key] = self.asked.get(spec.key, 0) + 1
        answer = self.answers.get(spec.key, GpuReading(time=0.0))
        gate = self.gates.get(spec.key)
        if gate is not None:
            assert gate.wait(60)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        for gate in self.gates.values():
            gate.set()


class Desk:
    """A sampler on a backend, with what it delivered."""

    def __init__(self, backend: Any, specs: list[GpuSpec], **options: Any) -> None:
        self.backend = backend
        self.events: list[SamplerEvent] = []
        ticks = itertools.count(1.0)
        options = {"interval": NEVER, "fast_interval": 0.01, "clock": lambda: next(ticks)} | options
        self.sampler = Sampler(backend, specs, deliver=self.events.append, **options)

    def of(self, key: str) -> list[SamplerEvent]:
        return [event for event in self.events if getattr(event, "gpu", None) == key]

    def readings(self, key: str) -> int:
        return sum(isinstance(event, ReadingTaken) for event in self.of(key))


@pytest.fixture
def desk() -> Iterator[Callable[..., Desk]]:
    made: list[Desk] = []

    def make(backend: Any = None, specs: list[GpuSpec] = SPECS, **options: Any) -> Desk:
        made.append(Desk(Backend() if backend is None else backend, specs, **options))
        made[-1].sampler.start()
        return made[-1]

    yield make
    for each in made:
        each.backend.close()
        each.sampler.stop(timeout=20.0)


def test_every_monitored_gpu_is_read_at_once_and_stamped(desk: Make, eventually: Make):
    one = desk()
    eventually(lambda: len(one.events) == 2)
    times = sorted((event.gpu, event.reading.time > 0) for event in one.events)
    assert times == [("gpu:0", True), ("gpu:1", True)]
    assert "dark" not in one.backend.asked


def test_the_time_of_a_reading_is_before_its_first_query(desk: Make, eventually: Make):
    order = []

    class Ordered(Backend):
        def read(self, spec: GpuSpec) -> GpuReading:
            order.append("read")
            return super().read(spec)

    def clock() -> float:
        order.append("clock")
        return 42.0

    one = desk(Ordered(), SPECS[:1], clock=clock)
    eventually(lambda: one.events)
    assert order == ["clock", "read"]
    assert one.events == [ReadingTaken("gpu:0", GpuReading(time=42.0))]


def test_readings_repeat_at_the_interval(desk: Make, eventually: Make):
    one = desk(interval=0.01)
    eventually(lambda: one.readings("gpu:0") >= 3 and one.readings("gpu:1") >= 3)


def test_fast_gpus_are_read_faster_and_slow_again(desk: Make, eventually: Make):
    one = desk()
    eventually(lambda: len(one.events) == 2)
    one.sampler.fast(frozenset({"gpu:1", "unknown"}))
    eventually(lambda: one.readings("gpu:1") >= 4)
    assert one.readings("gpu:0") == 1
    one.sampler.fast(frozenset({"gpu:0"}))
    eventually(lambda: one.readings("gpu:0") >= 4)


def test_a_refresh_reads_one_gpu_at_once(desk: Make, eventually: Make):
    one = desk()
    eventually(lambda: len(one.events) == 2)
    one.sampler.refresh(["gpu:1", "unknown"])
    eventually(lambda: one.readings("gpu:1") == 2)
    assert one.readings("gpu:0") == 1


def test_a_refresh_during_a_read_needs_another_read(desk: Make, eventually: Make):
    backend = Backend()
    gate = backend.gates["gpu:0"] = threading.Event()
    one = desk(backend, SPECS[:1])
    eventually(lambda: backend.asked.get("gpu:0") == 1)
    one.sampler.refresh(["gpu:0"])
    one.sampler.refresh(["gpu:0"])
    gate.set()
    eventually(lambda: one.readings("gpu:0") == 2)
    assert one.events[0].reading.time < one.events[1].reading.time


def test_a_gpu_that_hangs_stops_no_other_and_is_left_behind(
    desk: Make, eventually: Make, caplog: pytest.LogCaptureFixture
):
    backend = Backend()
    backend.gates["gpu:0"] = threading.Event()
    one = desk(backend, interval=0.01)
    eventually(lambda: one.readings("gpu:1") >= 5)
    assert one.of("gpu:0") == []
    one.sampler.stop(timeout=0.05)
    assert "sampler gpu:0 hangs in a call and is left behind" in caplog.text
    count = len(one.events)
    backend.close()
    one.sampler.stop(timeout=20.0)
    assert len(one.events) == count  # what it read in the end is of no use to anybody


def test_a_loss_during_the_end_is_not_told(desk: Make, eventually: Make):
    backend = Backend()
    backend.answers["gpu:0"] = DriverGoneError("gone")
    gate = backend.gates["gpu:0"] = threading.Event()
    one = desk(backend, SPECS[:1])
    eventually(lambda: backend.asked.get("gpu:0") == 1)
    one.sampler.stop(timeout=0.0)
    gate.set()
    one.sampler.stop(timeout=20.0)
    assert one.events == []


def test_a_lost_gpu_is_told_once_and_asked_again_at_the_normal_pace(desk: Make, eventually: Make):
    backend = Backend()
    backend.answers["gpu:0"] = GpuLostError("fell off the bus")
    one = desk(backend, SPECS[:1], interval=0.02)
    eventually(lambda: backend.asked["gpu:0"] >= 4)
    assert one.events == [GpuFailed("gpu:0", "fell off the bus")]
    backend.answers["gpu:0"] = GpuReading(time=0.0)
    eventually(lambda: one.readings("gpu:0"))
    backend.answers["gpu:0"] = GpuLostError("again")
    eventually(lambda: GpuFailed("gpu:0", "again") in one.events)
    assert not any(isinstance(event, DriverChanged) for event in one.events)


def test_a_lost_gpu_is_not_asked_faster_for_being_waited_on(desk: Make, eventually: Make):
    backend = Backend()
    backend.answers["gpu:0"] = GpuLostError("lost")
    one = desk(backend)
    eventually(lambda: one.of("gpu:0"))
    one.sampler.fast(frozenset({"gpu:0", "gpu:1"}))
    eventually(lambda: one.readings("gpu:1") >= 5)
    assert backend.asked["gpu:0"] == 1
    backend.answers.clear()
    one.sampler.refresh(["gpu:0"])
    eventually(lambda: one.readings("gpu:0") >= 5)  # it is back, and still waited on


def test_a_driver_that_goes_and_comes_back_is_told_once_each(desk: Make, eventually: Make):
    backend = Backend()
    backend.answers = {"gpu:0": DriverGoneError("no driver"), "gpu:1": DriverGoneError("no driver")}
    one = desk(backend, interval=0.01)
    eventually(lambda: min(backend.asked.get(key, 0) for key in ("gpu:0", "gpu:1")) >= 3)
    told = [event for event in one.events if not isinstance(event, ReadingTaken)]
    assert told.count(DriverChanged(up=False, detail="no driver")) == 1
    assert told.count(GpuFailed("gpu:0", "no driver")) == 1
    assert told.count(GpuFailed("gpu:1", "no driver")) == 1
    assert len(told) == 3
    # A GPU of which the driver says that it is lost shows that the driver is back.
    backend.answers = {"gpu:0": GpuLostError("lost"), "gpu:1": DriverGoneError("no driver")}
    eventually(lambda: DriverChanged(up=True) in one.events)


def test_old_news_of_the_driver_are_no_news():
    events: list[DriverChanged] = []
    driver = _Driver(events.append)
    driver.says(0, up=True)
    driver.says(0, up=False, detail="gone")
    driver.says(0, up=True)  # it had begun to ask before the driver went
    assert events == [DriverChanged(up=False, detail="gone")]
    driver.says(1, up=True)
    driver.says(1, up=False)
    assert events[1:] == [DriverChanged(up=True)]


def test_a_defect_costs_one_gpu_and_is_logged_once(desk: Make, eventually: Make, caplog: pytest.LogCaptureFixture):
    backend = Backend()
    backend.answers["gpu:0"] = ZeroDivisionError("oops")
    one = desk(backend, interval=0.01)
    eventually(lambda: backend.asked.get("gpu:0", 0) >= 3 and one.readings("gpu:1") >= 3)
    assert one.of("gpu:0") == [GpuFailed("gpu:0", "reading gpu:0 failed: ZeroDivisionError('oops')")]
    assert caplog.text.count("reading gpu:0 failed") == 1


def test_processes_come_with_their_families(desk: Make, eventually: Make, family: Make):
    pids = family(depth=1).pids
    backend = Backend()
    backend.answers["gpu:0"] = GpuReading(time=0.0, processes=(GpuProcess(ProcessId(pids[1], 0), 7),))
    one = desk(backend, SPECS[:1])
    eventually(lambda: one.events)
    (found,) = one.events[0].reading.processes
    assert found.process == identify(pids[1])
    assert found.ancestors[:2] == (identify(pids[0]), identify(US))


def test_polls_are_observed_failed_ones_too(desk: Make, eventually: Make):
    backend = Backend()
    backend.answers["gpu:0"] = GpuLostError("lost")
    polls: list[float] = []
    one = desk(backend, observe_poll=polls.append)
    eventually(lambda: len(polls) == 2)
    assert min(polls) > 0
    assert len(one.events) == 2


def test_descendants_of_holders_are_told(desk: Make, eventually: Make, family: Make):
    pids = family(depth=1).pids
    one = desk(specs=[])
    one.sampler.watch_holders(frozenset({identify(pids[0])}))
    eventually(lambda: one.events)
    assert one.events == [DescendantsSeen(identify(pids[0]), (identify(pids[1]),))]


def test_a_refresh_looks_for_descendants_too(desk: Make, eventually: Make, family: Make):
    one, parent = desk(specs=[]), family(depth=2)
    holder, child, grandchild = map(identify, parent.pids)
    one.sampler.watch_holders(frozenset({holder}))
    eventually(lambda: one.events)
    parent.kill(2)
    eventually(lambda: identify(parent.pids[2]) is None)
    one.sampler.refresh([])
    eventually(lambda: len(one.events) == 2)
    assert one.events[0].descendants == tuple(sorted([child, grandchild]))
    assert one.events[1].descendants == (child,)


# -- on the real pynvml --


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[FakeNvml]:
    fake = FakeNvml(tmp_path, gpus=2, reap=True)
    with fake.loaded():
        yield fake


def used(desk: Desk, key: str) -> int | None:
    taken = [event for event in desk.of(key) if isinstance(event, ReadingTaken)]
    return taken[-1].reading.memory_used_bytes if taken else None


def test_nvml_memory_of_a_process_comes_and_goes(driver: FakeNvml, desk: Make, eventually: Make, family: Make):
    job = family()
    backend = NvmlBackend()
    one = desk(backend, backend.open(), interval=0.01)
    eventually(lambda: used(one, "gpu:0") == 0)
    driver.allocate(0, job.pids[0], 3 * GIB)
    eventually(lambda: used(one, "gpu:0") == 3 * GIB)
    (found,) = one.of("gpu:0")[-1].reading.processes
    assert found.process == identify(job.pids[0])
    assert used(one, "gpu:1") == 0
    job.kill(0)
    eventually(lambda: used(one, "gpu:0") == 0)


def test_nvml_that_hangs_for_one_gpu(driver: FakeNvml, desk: Make, eventually: Make):
    backend = NvmlBackend()
    one = desk(backend, backend.open(), interval=0.01)
    eventually(lambda: used(one, "gpu:0") == used(one, "gpu:1") == 0)
    driver.hang(0, 60)
    driver.allocate(0, US, GIB)
    driver.allocate(1, US, GIB)
    eventually(lambda: used(one, "gpu:1") == GIB)
    assert used(one, "gpu:0") == 0
    driver.restore(0)
    eventually(lambda: used(one, "gpu:0") == GIB)


def test_nvml_that_goes_and_comes_back(driver: FakeNvml, desk: Make, eventually: Make):
    backend = NvmlBackend()
    one = desk(backend, backend.open(), interval=0.01)
    eventually(lambda: used(one, "gpu:0") == used(one, "gpu:1") == 0)
    driver.driver_gone()
    eventually(lambda: sum(isinstance(event, GpuFailed) for event in one.events) == 2)
    driver.allocate(0, US, GIB)
    driver.allocate(1, US, GIB)
    driver.driver_back()
    eventually(lambda: used(one, "gpu:0") == used(one, "gpu:1") == GIB)
    changes = [event.up for event in one.events if isinstance(event, DriverChanged)]
    assert changes == [False, True]
