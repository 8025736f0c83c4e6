import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuarbiter_server.core.model import GpuProcess, GpuReading, GpuSpec, ProcessId
from gpuarbiter_server.gpu.backend import GpuLostError, NoDriverError
from gpuarbiter_server.gpu.procfs import identify
from gpuarbiter_server.gpu.simulated import SimulatedBackend, default_simulation_root

Make = Callable[..., Any]

GIB = 2**30


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "devices"


@pytest.fixture
def backend(root: Path) -> SimulatedBackend:
    return SimulatedBackend(2, 24 * GIB, root, "seed")


@pytest.fixture
def spec(backend: SimulatedBackend) -> GpuSpec:
    return backend.open()[0]


@pytest.fixture
def device(root: Path, spec: GpuSpec) -> Path:
    return root / spec.uuid


def announce(device: Path, process: ProcessId, memory_bytes: object = GIB, utilization: object = 0.5) -> Path:
    said = {
        "pid": process.pid,
        "start_ticks": process.start_ticks,
        "memory_bytes": memory_bytes,
        "utilization_ratio": utilization,
    }
    path = device / f"{process.pid}.json"
    path.write_text(json.dumps(said))
    return path


def ourselves() -> ProcessId:
    process = identify(os.getpid())
    assert process is not None
    return process


def test_gpus_are_the_same_after_every_start(root: Path, backend: SimulatedBackend):
    specs = backend.open()
    assert [spec.key for spec in specs] == ["gpu:0", "gpu:1"]
    assert [spec.index for spec in specs] == [0, 1]
    assert all(spec.total_bytes == 24 * GIB and spec.monitored and spec.source == "simulated" for spec in specs)
    assert all(spec.reserved_bytes == 0 for spec in specs)
    assert all(re.fullmatch("GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", spec.uuid) for spec in specs)
    assert specs[0].uuid != specs[1].uuid
    assert SimulatedBackend(2, 24 * GIB, root, "seed").open() == specs
    assert SimulatedBackend(2, 24 * GIB, root, "other").open()[0].uuid != specs[0].uuid


def test_a_job_can_see_how_much_there_is_and_nobody_else_can(root: Path, device: Path, spec: GpuSpec):
    assert json.loads((device / "gpu.json").read_text()) == {"total_bytes": 24 * GIB, "uuid": spec.uuid, "index": 0}
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert stat.S_IMODE(device.stat().st_mode) == 0o700
    assert [path.name for path in device.iterdir()] == ["gpu.json"]


def test_an_idle_gpu(backend: SimulatedBackend, spec: GpuSpec):
    assert backend.read(spec) == GpuReading(
        time=0.0,
        memory_used_bytes=0,
        memory_free_bytes=24 * GIB,
        utilization_ratio=0.0,
        memory_bandwidth_ratio=0.0,
        power_watts=40.0,
        power_limit_watts=300.0,
        temperature_celsius=32.0,
        sm_clock_hertz=345_000_000,
        processes=(),
    )


def test_what_jobs_take_adds_up(backend: SimulatedBackend, spec: GpuSpec, device: Path, family: Make):
    other = identify(family().pids[0])
    announce(device, ourselves(), 3 * GIB, 0.5)
    announce(device, other, 2 * GIB, 0.25)
    reading = backend.read(spec)
    assert reading.memory_used_bytes == 5 * GIB
    assert reading.memory_free_bytes == 19 * GIB
    assert reading.utilization_ratio == 0.75
    assert reading.power_watts == 40.0 + 260.0 * 0.75
    assert set(reading.processes) == {GpuProcess(ourselves(), 3 * GIB), GpuProcess(other, 2 * GIB)}


def test_no_gpu_is_fuller_than_full_or_busier_than_busy(
    backend: SimulatedBackend, spec: GpuSpec, device: Path, family: Make
):
    announce(device, ourselves(), 20 * GIB, 0.9)
    announce(device, identify(family().pids[0]), 20 * GIB, 0.9)
    reading = backend.read(spec)
    assert reading.memory_used_bytes == 24 * GIB
    assert reading.memory_free_bytes == 0
    assert reading.utilization_ratio == 1.0
    assert reading.sm_clock_hertz == 1_980_000_000


def test_the_memory_of_the_dead_is_free(backend: SimulatedBackend, spec: GpuSpec, device: Path, family: Make):
    job = family()
    path = announce(device, identify(job.pids[0]))
    assert backend.read(spec).memory_used_bytes == GIB
    job.kill(0)
    assert backend.read(spec).memory_used_bytes == 0
    assert not path.exists()


def test_a_later_process_with_the_pid_took_nothing(backend: SimulatedBackend, spec: GpuSpec, device: Path):
    path = announce(device, ourselves()._replace(start_ticks=1))
    assert backend.read(spec).processes == ()
    assert not path.exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "7",
        "{}",
        '{"pid": 1, "start_ticks": 1, "memory_bytes": 1, "utilization_ratio": 0}',  # another's pid
        '{"pid": PID, "start_ticks": "x", "memory_bytes": 1, "utilization_ratio": 0}',
        '{"pid": PID, "start_ticks": START, "memory_bytes": -1, "utilization_ratio": 0}',
        '{"pid": PID, "start_ticks": START, "memory_bytes": 1e300, "utilization_ratio": 0}',
        '{"pid": PID, "start_ticks": START, "memory_bytes": Infinity, "utilization_ratio": 0}',
        '{"pid": PID, "start_ticks": START, "memory_bytes": 1, "utilization_ratio": NaN}',
        '{"pid": PID, "start_ticks": START, "memory_bytes": 1, "utilization_ratio": 1.5}',
        '{"pid": PID, "start_ticks": START, "memory_bytes": null, "utilization_ratio": 0}',
        "[" * 4000,
        " " * 5000 + "{}",
        "\0\0",
    ],
)
def test_nonsense_counts_as_nothing(backend: SimulatedBackend, spec: GpuSpec, device: Path, content: str):
    us = ourselves()
    text = content.replace("PID", str(us.pid)).replace("START", str(us.start_ticks))
    (device / f"{us.pid}.json").write_text(text)
    assert backend.read(spec).processes == ()


def test_other_files_are_none_of_its_business(backend: SimulatedBackend, spec: GpuSpec, device: Path):
    for name in ("x.json", ".7.json.tmp", "7.json.tmp", "77777777777.json"):
        (device / name).write_text("{}")
    (device / "7.json").mkdir()
    assert backend.read(spec).processes == ()
    assert (device / "x.json").exists()


def test_a_device_that_is_gone_is_lost_and_comes_back(backend: SimulatedBackend, spec: GpuSpec, device: Path):
    (device / "gpu.json").unlink()
    device.rmdir()
    with pytest.raises(GpuLostError, match="the simulated device of gpu:0 is gone"):
        backend.read(spec)
    device.mkdir()
    assert backend.read(spec).memory_used_bytes == 0
    backend.close()


def test_a_directory_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NoDriverError, match=r"simulated GPUs need the directory .*/file/devices: "):
        SimulatedBackend(1, GIB, tmp_path / "file" / "devices", "seed").open()


def test_a_directory_that_somebody_else_made_first(
    root: Path, backend: SimulatedBackend, monkeypatch: pytest.MonkeyPatch
):
    root.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(NoDriverError, match=f"it belongs to user {root.stat().st_uid}"):
        backend.open()


def test_where_the_devices_are(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GPU_ARBITER_SIM_DIR", "/chosen")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert default_simulation_root() == Path("/chosen")
    monkeypatch.delenv("GPU_ARBITER_SIM_DIR")
    assert default_simulation_root() == Path(f"/run/user/7/gpu-arbiter-sim-{os.getuid()}")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert default_simulation_root() == Path(f"/tmp/gpu-arbiter-sim-{os.getuid()}")
