"""Real hardware: skipped, with the reason, where no NVIDIA driver answers."""

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpuarbiter_server.core.events import ReadingTaken
from gpuarbiter_server.core.model import GpuProcess, GpuReading, GpuSpec
from gpuarbiter_server.gpu.backend import NoDriverError
from gpuarbiter_server.gpu.nvml import NvmlBackend
from gpuarbiter_server.gpu.procfs import INITIAL_PID_NAMESPACE, own_pid_namespace
from gpuarbiter_server.gpu.sampler import Sampler

OPEN_SECONDS = 60.0
WORKER = Path(__file__).with_name("cuda_worker.py")


def open_in_time(backend: NvmlBackend) -> list[GpuSpec]:
    """Opens NVML as the arbiter does, in a thread that may be given up."""
    answers: list[list[GpuSpec] | NoDriverError] = []

    def attempt() -> None:
        try:
            answers.append(backend.open())
        except NoDriverError as error:
            answers.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(OPEN_SECONDS)
    if not answers:
        pytest.skip(f"NVML did not start within {OPEN_SECONDS:.0f} s")
    if isinstance(answers[0], NoDriverError):
        pytest.skip(f"no NVIDIA GPU: {answers[0]}")
    return answers[0]


@pytest.fixture
def backend() -> Iterator[NvmlBackend]:
    made = NvmlBackend()
    yield made
    made.close()


@pytest.fixture
def specs(backend: NvmlBackend) -> list[GpuSpec]:
    return open_in_time(backend)


@pytest.fixture
def spec(specs: list[GpuSpec]) -> GpuSpec:
    return specs[0]


@pytest.fixture
def shared_pids() -> None:
    """Needs the driver's pids to be ours."""
    if own_pid_namespace() != INITIAL_PID_NAMESPACE:
        pytest.skip("the driver tells pids of the machine's PID namespace, and this is another one")


class Worker:
    """A real process that takes and gives back device memory; `nested` puts a shell between us and it."""

    def __init__(self, spec: GpuSpec, *, nested: bool = False) -> None:
        command = [sys.executable, str(WORKER)]
        if nested:
            command = ["sh", "-c", '"$0" "$1"; exit $?', *command]
        self.process = subprocess.Popen(
            command,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": spec.uuid},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        # Only once CUDA is up: its context alone takes hundreds of megabytes.
        self.pid = int(self.process.stdout.readline())

    def do(self, command: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n", f"{command} failed"

    def kill(self) -> None:
        if self.process.poll() is None:
            subprocess.run(["kill", "-9", str(self.pid)], check=False)
            self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def worker(spec: GpuSpec) -> Iterator[Callable[..., Worker]]:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        pytest.skip(f"no CUDA driver: {error}")
    made: list[Worker] = []

    def make(**options: Any) -> Worker:
        made.append(Worker(spec, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


class View:
    """What the sampler last said about each GPU."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self._readings: dict[str, GpuReading] = {}

    def deliver(self, event: Any) -> None:
        self.events.append(event)
        if isinstance(event, ReadingTaken):
            self._readings[event.gpu] = event.reading

    def reading(self, spec: GpuSpec) -> GpuReading | None:
        return self._readings.get(spec.key)

    def used(self, spec: GpuSpec) -> int:
        reading = self.reading(spec)
        assert reading is not None
        assert reading.memory_used_bytes is not None
        return reading.memory_used_bytes

    def process(self, spec: GpuSpec, pid: int) -> GpuProcess | None:
        reading = self.reading(spec)
        listed = () if reading is None or reading.processes is None else reading.processes
        return next((entry for entry in listed if entry.process.pid == pid), None)


@pytest.fixture
def view(backend: NvmlBackend, specs: list[GpuSpec], eventually: Callable[..., None]) -> Iterator[View]:
    made = View()
    sampler = Sampler(backend, specs, interval=0.05, clock=time.monotonic, deliver=made.deliver)
    sampler.start()
    eventually(lambda: all(made.reading(spec) is not None for spec in specs))
    yield made
    sampler.stop(timeout=30.0)


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Waits for what a real driver takes its time for; fails when it never comes."""

    def wait(condition: Callable[[], object], timeout: float = 60.0) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, "the awaited condition never came true"
            time.sleep(0.01)

    return wait
