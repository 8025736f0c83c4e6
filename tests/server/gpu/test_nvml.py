import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.nvml import GIB, FakeGpu, FakeNvml
from gpuarbiter_server.core.model import GpuProcess, GpuReading, GpuSpec, ProcessId
from gpuarbiter_server.gpu import nvml_queries
from gpuarbiter_server.gpu.backend import DriverGoneError, GpuLostError, NoDriverError
from gpuarbiter_server.gpu.nvml import NvmlBackend

Make = Callable[..., Any]

MIB = 2**20
US = os.getpid()
UNKNOWN = 999


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[FakeNvml]:
    fake = FakeNvml(tmp_path, gpus=2)
    with fake.loaded():
        yield fake


@pytest.fixture
def backend() -> Iterator[NvmlBackend]:
    backend = NvmlBackend()
    yield backend
    backend.close()


def used(backend: NvmlBackend, spec: GpuSpec) -> int | None:
    return backend.read(spec).memory_used_bytes


def test_gpus_are_listed_as_the_driver_has_them(driver: FakeNvml, backend: NvmlBackend):
    first, second = backend.open()
    assert first == GpuSpec(
        key="gpu:0",
        index=0,
        total_bytes=24 * GIB,
        uuid=driver.gpus[0].uuid,
        name="Fake GPU",
        reserved_bytes=512 * MIB,
        source="nvml",
        driver_version="580.1.fake",
    )
    assert (second.key, second.index, second.uuid) == ("gpu:1", 1, driver.gpus[1].uuid)


def test_gpus_are_numbered_by_their_place_on_the_bus(driver: FakeNvml, backend: NvmlBackend):
    with driver.change() as gpus:
        gpus[0].bus, gpus[1].bus = 9, 3
    assert [spec.uuid for spec in backend.open()] == [driver.gpus[1].uuid, driver.gpus[0].uuid]


def test_without_bus_ids_the_drivers_order_stands(driver: FakeNvml, backend: NvmlBackend):
    with driver.change() as gpus:
        gpus[0].bus, gpus[1].bus = 9, 3
    driver.unsupported(1, "nvmlDeviceGetPciInfo_v3")
    assert [spec.uuid for spec in backend.open()] == [gpu.uuid for gpu in driver.gpus]


@pytest.mark.parametrize("function", ["*", "nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetMigMode"])
def test_a_gpu_that_cannot_be_opened_keeps_its_number(
    driver: FakeNvml, backend: NvmlBackend, function: str, caplog: pytest.LogCaptureFixture
):
    with driver.change() as gpus:
        gpus[0].errors[function] = 15
    found = {spec.key: spec.uuid for spec in backend.open()}
    assert found["gpu:1"] == driver.gpus[1].uuid
    if function != "nvmlDeviceGetPciInfo_v3":
        assert "gpu:0" not in found
        assert "left out until the next start" in caplog.text


def test_a_reading_in_our_units(driver: FakeNvml, backend: NvmlBackend):
    with driver.change() as gpus:
        gpus[0] = FakeGpu(
            gpus[0].uuid,
            base_used_bytes=GIB,
            load=(83, 41),
            power_milliwatts=123_456,
            celsius=66,
            megahertz=1755,
        )
    driver.allocate(0, US, 2 * GIB)
    spec, _ = backend.open()
    assert backend.read(spec) == GpuReading(
        time=0.0,
        memory_used_bytes=3 * GIB,
        memory_free_bytes=21 * GIB - 512 * MIB,
        utilization_ratio=0.83,
        memory_bandwidth_ratio=0.41,
        power_watts=123.456,
        power_limit_watts=300.0,
        temperature_celsius=66.0,
        sm_clock_hertz=1_755_000_000,
        processes=(GpuProcess(ProcessId(US, 0), 2 * GIB),),
    )


def test_a_process_that_is_listed_twice_counts_once(driver: FakeNvml, backend: NvmlBackend):
    driver.allocate(0, 70, 2 * GIB, kind="C")
    driver.allocate(0, 70, 3 * GIB, kind="G")
    driver.allocate(0, 71, kind="G")
    driver.allocate(0, 71, GIB, kind="M")
    driver.allocate(0, 72, kind="M")
    spec, other = backend.open()
    assert backend.read(spec).processes == (
        GpuProcess(ProcessId(70, 0), 3 * GIB),
        GpuProcess(ProcessId(71, 0), GIB),
        GpuProcess(ProcessId(72, 0), None),
    )
    assert backend.read(other).processes == ()


def test_memory_moves_with_the_processes(driver: FakeNvml, backend: NvmlBackend, family: Make):
    with driver.change() as gpus:
        gpus[0].reap = True
    job = family()
    spec, _ = backend.open()
    driver.allocate(0, job.pids[0], 4 * GIB)
    assert used(backend, spec) == 4 * GIB
    job.kill(0)
    reading = backend.read(spec)
    assert (reading.memory_used_bytes, reading.processes) == (0, ())
    driver.allocate(0, US, GIB)
    assert used(backend, spec) == GIB
    driver.free(0, US)
    assert used(backend, spec) == 0


@pytest.mark.parametrize(
    ("function", "values"),
    [
        ("nvmlDeviceGetUtilizationRates", ["utilization_ratio", "memory_bandwidth_ratio"]),
        ("nvmlDeviceGetPowerUsage", ["power_watts"]),
        ("nvmlDeviceGetEnforcedPowerLimit", ["power_limit_watts"]),
        ("nvmlDeviceGetTemperature", ["temperature_celsius"]),
        ("nvmlDeviceGetClockInfo", ["sm_clock_hertz"]),
    ],
)
@pytest.mark.parametrize(("code", "error"), [(3, "NotSupported"), (UNKNOWN, "Unknown"), (77, "code 77")])
def test_a_query_that_fails_costs_its_own_value(
    driver: FakeNvml, backend: NvmlBackend, function: str, values: list[str], code: int, error: str
):
    spec, _ = backend.open()
    whole = backend.read(spec)
    assert None not in [getattr(whole, name) for name in values]
    with driver.change() as gpus:
        gpus[0].errors[function] = code
    lessened = backend.read(spec)
    assert [name for name in GpuReading.__slots__ if getattr(whole, name) != getattr(lessened, name)] == values
    assert [getattr(lessened, name) for name in values] == [None] * len(values)
    assert backend.errors[function, error] == 1
    driver.restore(0)
    assert backend.read(spec) == whole


def test_memory_without_the_second_version(driver: FakeNvml, backend: NvmlBackend):
    driver.unsupported(0, "nvmlDeviceGetMemoryInfo_v2")
    with driver.change() as gpus:
        gpus[0].base_used_bytes = GIB
    spec, _ = backend.open()
    assert (spec.total_bytes, spec.reserved_bytes) == (24 * GIB, 0)
    # Such a driver counts what it reserves as used, and says no more than that.
    assert used(backend, spec) == GIB + 512 * MIB


def test_memory_that_cannot_be_told_for_now(driver: FakeNvml, backend: NvmlBackend):
    with driver.change() as gpus:
        gpus[0].errors = {"nvmlDeviceGetMemoryInfo_v2": UNKNOWN, "nvmlDeviceGetMemoryInfo": UNKNOWN}
    spec, _ = backend.open()
    assert spec.total_bytes == 0
    reading = backend.read(spec)
    assert (reading.memory_used_bytes, reading.memory_free_bytes) == (None, None)
    assert reading.power_watts == 60.0


def test_memory_that_is_refused_later_is_not_the_systems(driver: FakeNvml, backend: NvmlBackend):
    spec, _ = backend.open()
    driver.unsupported(0, "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMemoryInfo")
    assert used(backend, spec) is None


@pytest.mark.parametrize("way", ["refused", "zero"])
def test_unified_memory_is_the_systems(
    driver: FakeNvml, backend: NvmlBackend, monkeypatch: pytest.MonkeyPatch, way: str
):
    answers = iter([nvml_queries.Memory(64 * GIB, 60 * GIB, 0), nvml_queries.Memory(64 * GIB, 24 * GIB, 0)])
    monkeypatch.setattr(nvml_queries, "system_memory", lambda: next(answers))
    if way == "refused":
        driver.unsupported(0, "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMemoryInfo")
    else:
        driver.unsupported(0, "nvmlDeviceGetMemoryInfo_v2")
        with driver.change() as gpus:
            gpus[0].total_bytes = 0
        driver.unsupported(0, "nvmlDeviceGetMemoryInfo")
    spec, other = backend.open()
    assert (spec.total_bytes, spec.reserved_bytes) == (64 * GIB, 0)
    assert other.total_bytes == 24 * GIB
    reading = backend.read(spec)
    assert (reading.memory_used_bytes, reading.memory_free_bytes) == (40 * GIB, 24 * GIB)


def test_the_systems_memory_is_what_proc_says(monkeypatch: pytest.MonkeyPatch):
    memory = nvml_queries.system_memory()
    assert memory is not None
    assert memory.total == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < memory.free < memory.total
    assert memory.reserved == 0
    monkeypatch.setattr("builtins.open", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError()))
    assert nvml_queries.system_memory() is None


def test_processes_that_cannot_be_told(driver: FakeNvml, backend: NvmlBackend):
    driver.allocate(0, US, GIB, kind="G")
    spec, _ = backend.open()
    driver.unsupported(0, "nvmlDeviceGetComputeRunningProcesses_v3")
    assert backend.read(spec).processes == (GpuProcess(ProcessId(US, 0), GIB),)
    driver.unsupported(0, "nvmlDeviceGetGraphicsRunningProcesses_v3", "nvmlDeviceGetMPSComputeRunningProcesses_v3")
    assert backend.read(spec).processes is None


def test_a_lost_gpu_is_lost_alone_and_comes_back(driver: FakeNvml, backend: NvmlBackend):
    spec, other = backend.open()
    driver.lose(0)
    for _ in range(3):
        with pytest.raises(GpuLostError, match="GPU is lost") as caught:
            backend.read(spec)
        assert not isinstance(caught.value, DriverGoneError)
        assert used(backend, other) == 0
    driver.restore(0)
    assert used(backend, spec) == 0
    assert backend.errors["nvmlDeviceGetMemoryInfo", "GpuIsLost"] == 1
    assert backend.errors["nvmlDeviceGetHandleByUUID", "GpuIsLost"] == 2


def test_when_every_gpu_is_lost_nvml_is_started_again(driver: FakeNvml, backend: NvmlBackend):
    spec, other = backend.open()
    driver.lose(0)
    driver.lose(1)
    for each in (spec, other, spec):
        with pytest.raises(GpuLostError):
            backend.read(each)
    driver.restore(0)
    driver.restore(1)
    assert used(backend, spec) == 0
    assert used(backend, other) == 0


def test_a_gpu_that_is_taken_out_is_lost(driver: FakeNvml, backend: NvmlBackend):
    spec, other = backend.open()
    driver.lose(1)
    with pytest.raises(GpuLostError):
        backend.read(other)
    gone = driver.gpus[1]
    with driver.change() as gpus:
        gpus.pop()
    with pytest.raises(GpuLostError, match=f"does not know a GPU {gone.uuid} any more"):
        backend.read(other)
    assert used(backend, spec) == 0


def test_a_gpu_that_answers_nothing_is_lost(driver: FakeNvml, backend: NvmlBackend):
    spec, other = backend.open()
    with driver.change() as gpus:
        gpus[0].errors["*"] = UNKNOWN
    with pytest.raises(GpuLostError, match="does not answer one question about this GPU"):
        backend.read(spec)
    assert used(backend, other) == 0


def test_a_driver_that_goes_takes_every_gpu_and_brings_it_back(driver: FakeNvml, backend: NvmlBackend):
    spec, other = backend.open()
    driver.driver_gone()
    for each in (spec, other, spec):
        with pytest.raises(DriverGoneError, match=r"Driver Not Loaded|driver is not loaded"):
            backend.read(each)
    driver.driver_back()
    assert used(backend, other) == 0
    assert used(backend, spec) == 0


def test_nvml_that_forgot_that_it_was_started_is_started_again(driver: FakeNvml, backend: NvmlBackend):
    spec, other = backend.open()
    driver.forget()
    with pytest.raises(DriverGoneError):
        backend.read(spec)
    assert used(backend, spec) == 0
    assert used(backend, other) == 0
    assert backend.errors["nvmlDeviceGetMemoryInfo", "Uninitialized"] == 1


def test_a_read_that_a_restart_spoilt_is_taken_again(
    driver: FakeNvml, backend: NvmlBackend, monkeypatch: pytest.MonkeyPatch
):
    """GPU 1 is being read while GPU 0 finds NVML forgotten, and starts it again."""
    import pynvml

    spec, other = backend.open()
    driver.hang(1, 60, "nvmlDeviceGetTemperature")
    asked = threading.Event()
    real = pynvml.nvmlDeviceGetTemperature
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTemperature", lambda *args: (asked.set(), real(*args))[1])
    answers: list[GpuReading] = []
    reader = threading.Thread(target=lambda: answers.append(backend.read(other)), daemon=True)
    reader.start()
    assert asked.wait(20)
    driver.forget()
    with pytest.raises(DriverGoneError):
        backend.read(spec)
    assert used(backend, spec) == 0
    driver.restore(1)
    reader.join(20)
    assert [answer.temperature_celsius for answer in answers] == [40.0]


@pytest.mark.usefixtures("driver")
def test_a_read_that_restarts_spoil_again_and_again_gives_up(backend: NvmlBackend, monkeypatch: pytest.MonkeyPatch):
    spec, _ = backend.open()

    def spoilt(*_: object, **__: object) -> GpuReading:
        backend._generation += 1
        raise GpuLostError("an old handle")

    monkeypatch.setattr("gpuarbiter_server.gpu.nvml.read_gpu", spoilt)
    with pytest.raises(GpuLostError, match="NVML was started again whenever gpu:0 was being read"):
        backend.read(spec)


def test_a_call_that_hangs_for_one_gpu_stops_no_other(driver: FakeNvml, backend: NvmlBackend):
    spec, other = backend.open()
    driver.hang(0, 60)
    answers: list[GpuReading] = []
    reader = threading.Thread(target=lambda: answers.append(backend.read(spec)), daemon=True)
    reader.start()
    for _ in range(3):
        assert used(backend, other) == 0
    assert not answers
    driver.restore(0)
    reader.join(20)
    assert len(answers) == 1


def mig_driver(folder: Path, *numbers: int) -> FakeNvml:
    instances = {
        number: FakeGpu(f"MIG-{number}", name=f"Fake GPU MIG {number}", total_bytes=5 * GIB, reserved_bytes=0)
        for number in numbers
    }
    return FakeNvml(folder, [FakeGpu("GPU-whole", bus=1), FakeGpu("GPU-split", bus=2, instances=instances)])


def test_mig_instances_are_gpus_of_their_own(tmp_path: Path, backend: NvmlBackend):
    driver = mig_driver(tmp_path, 0, 2)
    with driver.loaded():
        whole, first, second = backend.open()
        assert (whole.key, whole.parent_uuid) == ("gpu:0", "")
        assert first == GpuSpec(
            key="gpu:1/0",
            index=1,
            total_bytes=5 * GIB,
            uuid="MIG-0",
            name="Fake GPU MIG 0",
            parent_uuid="GPU-split",
            driver_version="580.1.fake",
        )
        assert (second.key, second.uuid) == ("gpu:1/2", "MIG-2")
        with driver.change() as gpus:
            gpus[1].instances[2].processes[US, "C"] = GIB
        assert used(backend, first) == 0
        reading = backend.read(second)
        assert reading.memory_used_bytes == GIB
        assert reading.processes == (GpuProcess(ProcessId(US, 0), GIB),)
        assert reading.utilization_ratio is None
        backend.close()


def test_a_mig_instance_comes_back(tmp_path: Path, backend: NvmlBackend):
    driver = mig_driver(tmp_path, 0)
    with driver.loaded():
        _, instance = backend.open()
        with driver.change() as gpus:
            gpus[1].instances[0].errors["*"] = 16
        with pytest.raises(GpuLostError):
            backend.read(instance)
        with driver.change() as gpus:
            gpus[1].instances[0].errors.clear()
        assert used(backend, instance) == 0
        backend.close()


def test_no_gpu_at_all(tmp_path: Path, backend: NvmlBackend):
    with (
        FakeNvml(tmp_path, gpus=0).loaded(),
        pytest.raises(NoDriverError, match=r"has no GPU \(or MIG instance\) to offer"),
    ):
        backend.open()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (9, "NVML does not start: the NVIDIA driver is not loaded"),
        (18, "NVML does not start: the NVIDIA library does not match the driver"),
        (UNKNOWN, "NVML does not start: Unknown Error"),
    ],
)
def test_a_driver_that_does_not_start(driver: FakeNvml, backend: NvmlBackend, code: int, message: str):
    driver.driver_gone(code)
    with pytest.raises(NoDriverError, match=message):
        backend.open()
    assert sum(backend.errors.values()) == 1


@pytest.mark.parametrize(
    "function",
    [
        "nvmlDeviceGetCount_v2",
        "nvmlDeviceGetHandleByIndex_v2",
        "nvmlDeviceGetPciInfo_v3",
        "nvmlDeviceGetMigMode",
    ],
)
def test_a_driver_that_goes_while_it_is_opened(driver: FakeNvml, backend: NvmlBackend, function: str):
    with driver.change():
        driver.errors[function] = 1
    with pytest.raises(NoDriverError, match="the NVIDIA driver stopped answering: "):
        backend.open()


def test_an_open_that_nobody_waits_for_any_more_leaves_nothing_open(driver: FakeNvml, backend: NvmlBackend):
    import pynvml

    with driver.change():
        driver.hangs["nvmlInit"] = 60
    failures: list[NoDriverError] = []

    def late_open() -> None:
        try:
            backend.open()
        except NoDriverError as error:
            failures.append(error)

    opener = threading.Thread(target=late_open, daemon=True)
    opener.start()
    backend.close()
    driver.driver_back()
    opener.join(20)
    assert [str(error) for error in failures] == ["NVML took too long to start and was given up"]
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        pynvml.nvmlDeviceGetCount()


@pytest.mark.usefixtures("driver")
def test_a_closed_backend_reads_nothing(backend: NvmlBackend):
    spec, _ = backend.open()
    backend.close()
    with pytest.raises(DriverGoneError, match="NVML was not opened"):
        backend.read(spec)
    backend.close()


def test_a_driver_that_is_gone_can_be_closed(driver: FakeNvml, backend: NvmlBackend):
    backend.open()
    driver.driver_gone()
    import pynvml

    pynvml.nvmlShutdown()
    backend.close()
    assert backend.errors["nvmlShutdown", "Uninitialized"] == 1


def test_without_nvidia_ml_py(backend: NvmlBackend, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(NoDriverError, match="the package nvidia-ml-py is not installed"):
        backend.open()


OPEN = """
from gpuarbiter_server.gpu.nvml import NvmlBackend
from gpuarbiter_server.gpu.backend import NoDriverError
import sys
assert "pynvml" not in sys.modules
try:
    print([spec.key for spec in NvmlBackend().open()])
except NoDriverError as error:
    print(error)
"""


def opened_with(env: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", OPEN], env=os.environ | env, capture_output=True, check=True, text=True
    )
    return done.stdout


def test_a_process_of_its_own_meets_the_fake_by_its_environment(driver: FakeNvml):
    assert opened_with(driver.env) == "['gpu:0', 'gpu:1']\n"


def test_a_machine_without_the_library(tmp_path: Path):
    (tmp_path / "libnvidia-ml.so.1").write_text("no library")
    assert "libnvidia-ml.so.1 was not found" in opened_with({"LD_LIBRARY_PATH": str(tmp_path)})
