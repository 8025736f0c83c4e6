"""What NVML really says, against what the sampler makes of it."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from gpuarbiter_server.core.events import DriverChanged, GpuFailed
from gpuarbiter_server.core.model import GpuSpec
from gpuarbiter_server.gpu.nvml import NvmlBackend
from gpuarbiter_server.gpu.procfs import identify

pytestmark = pytest.mark.hardware

MIB = 2**20
GIB = 2**30
# What the driver rounds, and what its bookkeeping takes on top.
SLACK = 64 * MIB

Make = Callable[..., Any]


def test_the_gpus_are_told_by_name(specs: list[GpuSpec]):
    for spec in specs:
        assert spec.key.startswith("gpu:")
        assert spec.uuid.startswith("MIG-" if spec.parent_uuid else "GPU-")
        assert spec.name
        assert spec.driver_version[0].isdigit()
        assert spec.source == "nvml"
        assert 0 <= spec.reserved_bytes < spec.total_bytes
    assert len({spec.uuid for spec in specs}) == len(specs)


def test_a_reading_is_plausible(backend: NvmlBackend, spec: GpuSpec):
    reading = backend.read(spec)
    assert reading.memory_used_bytes is not None
    assert reading.memory_free_bytes is not None
    together = reading.memory_used_bytes + reading.memory_free_bytes + spec.reserved_bytes
    assert together == pytest.approx(spec.total_bytes, abs=SLACK)
    for value, low, high in (
        (reading.utilization_ratio, 0, 1),
        (reading.memory_bandwidth_ratio, 0, 1),
        (reading.power_watts, 1, 2000),
        (reading.power_limit_watts, 1, 2000),
        (reading.temperature_celsius, 1, 120),
        (reading.sm_clock_hertz, 1e6, 1e10),
    ):
        assert value is None or low <= value <= high


def test_memory_follows_a_process(view: Any, spec: GpuSpec, worker: Make, eventually: Make):
    job = worker()
    before = view.used(spec)
    job.do(f"alloc {2 * GIB}")
    eventually(lambda: view.used(spec) >= before + 2 * GIB - SLACK)
    job.do("free")
    eventually(lambda: view.used(spec) <= before + SLACK)


def test_the_memory_of_a_killed_process_comes_back(view: Any, spec: GpuSpec, worker: Make, eventually: Make):
    before = view.used(spec)
    job = worker()
    job.do(f"alloc {2 * GIB}")
    eventually(lambda: view.used(spec) >= before + 2 * GIB)
    job.kill()
    eventually(lambda: view.used(spec) <= before + SLACK)


@pytest.mark.usefixtures("shared_pids")
def test_memory_is_attributed_to_its_process(view: Any, spec: GpuSpec, worker: Make, eventually: Make):
    one, other = worker(), worker()
    one.do(f"alloc {2 * GIB}")
    other.do(f"alloc {1 * GIB}")
    eventually(lambda: view.process(spec, one.pid) and view.process(spec, other.pid))
    eventually(lambda: view.process(spec, one.pid).used_bytes >= 2 * GIB)
    eventually(lambda: view.process(spec, other.pid).used_bytes >= 1 * GIB)
    # The same context on top of either: only what they allocated tells them apart.
    difference = view.process(spec, one.pid).used_bytes - view.process(spec, other.pid).used_bytes
    assert difference == pytest.approx(1 * GIB, abs=SLACK)
    assert view.process(spec, one.pid).process == identify(one.pid)
    one.kill()
    eventually(lambda: view.process(spec, one.pid) is None)
    assert view.process(spec, other.pid) is not None


@pytest.mark.usefixtures("shared_pids")
def test_a_process_is_known_by_its_ancestors(view: Any, spec: GpuSpec, worker: Make, eventually: Make):
    job = worker(nested=True)
    assert job.pid != job.process.pid
    eventually(lambda: view.process(spec, job.pid))
    ancestors = view.process(spec, job.pid).ancestors
    assert ancestors[:2] == (identify(job.process.pid), identify(os.getpid()))


def test_a_healthy_driver_makes_no_fuss(view: Any, spec: GpuSpec, eventually: Make):
    count = len(view.events)
    eventually(lambda: len(view.events) >= count + 10)
    assert view.reading(spec) is not None
    assert not [event for event in view.events if isinstance(event, DriverChanged | GpuFailed)]
