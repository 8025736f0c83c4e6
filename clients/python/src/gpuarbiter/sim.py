"""Simulated GPU memory: what a job does on a simulated GPU in place of allocating on a real one.

A simulated GPU is a folder. The arbiter makes `<root>/<uuid>/gpu.json` ("total_bytes", "uuid", "index");
a job writes `<root>/<uuid>/<pid>.json` ("pid", "start_ticks", "memory_bytes", "utilization_ratio") and
removes it when it is done. The root is GPU_ARBITER_SIM_DIR, otherwise gpu-arbiter-sim-<uid> in
XDG_RUNTIME_DIR or /tmp.

Law: who allocates holds the GPU's lock file, and what living processes hold never exceeds the total: the
one who would go above it runs out of memory, as on a real device. Who is dead holds nothing.
"""

import contextlib
import json
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gpuarbiter._holder import start_ticks
from gpuarbiter._units import Size, format_bytes, parse_bytes

ROOT_VARIABLE = "GPU_ARBITER_SIM_DIR"


class SimulatedOutOfMemory(MemoryError):  # noqa: N818 -- named like the torch.OutOfMemoryError that it stands for
    """A simulated GPU has no room for what was asked."""


def root() -> Path:
    """The folder of the simulated GPUs."""
    told = os.environ.get(ROOT_VARIABLE)
    if told:
        return Path(told)
    base = os.environ.get("XDG_RUNTIME_DIR") or "/tmp"  # noqa: S108 -- where the arbiter makes it, checking who owns it
    user = os.getuid() if hasattr(os, "getuid") else 0
    return Path(base) / f"gpu-arbiter-sim-{user}"


@dataclass(frozen=True, slots=True)
class SimulatedGpu:
    """A simulated GPU, as the arbiter made it."""

    uuid: str
    index: int
    total_bytes: int
    folder: Path


def gpus(folder: Path | None = None) -> list[SimulatedGpu]:
    """The simulated GPUs there are, by index."""
    found = []
    for path in (folder or root()).glob("*/gpu.json"):
        facts = _read(path)
        if facts is not None:
            found.append(SimulatedGpu(facts["uuid"], int(facts["index"]), int(facts["total_bytes"]), path.parent))
    return sorted(found, key=lambda gpu: gpu.index)


def visible(devices: str | None, folder: Path | None = None) -> list[SimulatedGpu]:
    """The simulated GPUs that a CUDA_VISIBLE_DEVICES (UUIDs or indices, comma-separated) names; None: all.

    Raises:
        ValueError: it names one that is not there.
    """
    present = gpus(folder)
    if devices is None:
        return present
    by_name = {name: gpu for gpu in present for name in (gpu.uuid, str(gpu.index))}
    chosen = []
    for name in filter(None, (each.strip() for each in devices.split(","))):
        if name not in by_name:
            there = ", ".join(gpu.uuid for gpu in present) or "none"
            raise ValueError(f"no simulated GPU {name!r} under {folder or root()}; there are: {there}")
        chosen.append(by_name[name])
    return chosen


def used_bytes(gpu: SimulatedGpu) -> int:
    """What living processes hold on a simulated GPU."""
    return sum(int(job["memory_bytes"]) for job in _living(gpu))


class SimulatedMemory:
    """Holds memory on simulated GPUs for the length of a with-block, as a model on a device does.

    Args:
        memory: how much on each GPU: bytes, or "6GiB".
        devices: UUIDs or indices, as a string or several; those of CUDA_VISIBLE_DEVICES unless told.
        utilization_ratio: how busy it keeps the GPU, 0 to 1.
        folder: the root, where it is another than `root()`.

    Entering raises:
        SimulatedOutOfMemory: a GPU has no room.
        ValueError: a GPU is not there.
    """

    def __init__(
        self,
        memory: Size,
        devices: Iterable[str] | str | None = None,
        *,
        utilization_ratio: float = 1.0,
        folder: Path | None = None,
    ) -> None:
        if not 0 <= utilization_ratio <= 1:
            raise ValueError(f"utilization_ratio: {utilization_ratio!r} is not allowed; 0 to 1")
        self.memory_bytes = parse_bytes(memory)
        self.utilization_ratio = utilization_ratio
        if devices is None:
            devices = os.environ.get("CUDA_VISIBLE_DEVICES")
        elif not isinstance(devices, str):
            devices = ",".join(devices)
        self.gpus = visible(devices, folder)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            for gpu in self.gpus:
                _allocate(gpu, self)
                undo.callback(_free, gpu, self)
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for gpu in self.gpus:
            _free(gpu, self)


# A process has one file per GPU; what its threads hold there adds up.
_own: dict[Path, list[SimulatedMemory]] = {}
_own_lock = threading.Lock()


def _allocate(gpu: SimulatedGpu, part: SimulatedMemory) -> None:
    with _own_lock, _locked(gpu):
        held = used_bytes(gpu)
        if held + part.memory_bytes > gpu.total_bytes:
            raise SimulatedOutOfMemory(
                f"out of memory on simulated GPU {gpu.uuid}: {format_bytes(part.memory_bytes)} asked, "
                f"{format_bytes(gpu.total_bytes - held)} free of {format_bytes(gpu.total_bytes)}"
            )
        _own.setdefault(_job_file(gpu), []).append(part)
        _write_own(gpu)


def _free(gpu: SimulatedGpu, part: SimulatedMemory) -> None:
    with _own_lock, _locked(gpu):
        parts = _own.get(_job_file(gpu), [])
        if part in parts:
            parts.remove(part)
        _write_own(gpu)


def _job_file(gpu: SimulatedGpu) -> Path:
    return gpu.folder / f"{os.getpid()}.json"


def _write_own(gpu: SimulatedGpu) -> None:
    path = _job_file(gpu)
    parts = _own.get(path)
    if not parts:
        _own.pop(path, None)
        path.unlink(missing_ok=True)
        return
    pid = os.getpid()
    job = {
        "pid": pid,
        "start_ticks": start_ticks(pid),
        "memory_bytes": sum(part.memory_bytes for part in parts),
        "utilization_ratio": min(1.0, sum(part.utilization_ratio for part in parts)),
    }
    # Readers must never see half a file.
    written = path.with_suffix(".new")
    written.write_text(json.dumps(job))
    written.replace(path)


def _living(gpu: SimulatedGpu) -> Iterator[dict[str, Any]]:
    for path in gpu.folder.glob("*.json"):
        job = None if path.name == "gpu.json" else _read(path)
        if job is not None and _lives(int(job["pid"]), int(job.get("start_ticks", 0))):
            yield job


def _lives(pid: int, ticks: int) -> bool:
    if Path("/proc/self/stat").exists():
        now = start_ticks(pid)
        return now != 0 and (ticks in {0, now}) and not _is_zombie(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def _is_zombie(pid: int) -> bool:
    """Whether it is dead, and only its parent has not asked how it ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in {"Z", "X"}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        facts: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):  # gone meanwhile, or not a job's
        return None
    return facts


@contextlib.contextmanager
def _locked(gpu: SimulatedGpu) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # Windows: the jobs of one process are serialized, several processes are not
        yield
        return
    with (gpu.folder / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
