"""GPUs that are made up, with memory and utilization that follow what simulated jobs do.

Law: this only reads what jobs announce. A job is a real process; it writes, atomically, what it takes to
`ROOT/UUID/PID.json`, the stand-in for the device itself, and the arbiter finds out as it would through
NVML: later, on its own, and without the job's leave. A file counts while its very process (pid and start time)
lives, and is removed afterwards, as a driver frees the memory of whoever dies.
"""

import json
import os
import re
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from gpuarbiter_server.core.model import GpuProcess, GpuReading, GpuSpec, ProcessId
from gpuarbiter_server.gpu.backend import GpuLostError, NoDriverError
from gpuarbiter_server.gpu.procfs import is_alive

# A job's file has four numbers; whatever is longer is none.
MAX_FILE_BYTES = 4096
# What no device has; a larger figure would not fit the API's 64 bits.
MAX_JOB_BYTES = 2**50
JOB_FILE = re.compile(r"(\d{1,10})\.json")
UUID_NAMESPACE = uuid.UUID("6a0f1d0e-58f4-4f0a-9d83-5f3d1c2f5b7a")

# Plausible figures between idle and full load, of a card of the 300 W class.
IDLE_WATTS, FULL_WATTS = 40.0, 300.0
IDLE_CELSIUS, FULL_CELSIUS = 32.0, 78.0
IDLE_HERTZ, FULL_HERTZ = 345_000_000, 1_980_000_000
BANDWIDTH_SHARE = 0.7


class Job(NamedTuple):
    """What one process says that it takes of a simulated GPU."""

    process: ProcessId
    memory_bytes: int
    utilization_ratio: float


def default_simulation_root() -> Path:
    """Where simulated devices live unless told otherwise; arbiter and jobs agree by this same rule."""
    chosen = os.environ.get("GPU_ARBITER_SIM_DIR")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_RUNTIME_DIR") or "/tmp"  # noqa: S108 - `open` checks who owns it
    return Path(base) / f"gpu-arbiter-sim-{os.getuid() if hasattr(os, 'getuid') else 0}"


def simulated_uuid(seed: str, index: int) -> str:
    """The same UUID for the same seed and index, whenever the arbiter starts."""
    return f"GPU-{uuid.uuid5(UUID_NAMESPACE, f'{seed}:{index}')}"


class SimulatedBackend:
    """`count` GPUs of `memory_bytes` each, below the directory `root`."""

    def __init__(self, count: int, memory_bytes: int, root: Path, seed: str) -> None:
        self._root = root
        self._specs = [
            GpuSpec(
                key=f"gpu:{index}",
                index=index,
                total_bytes=memory_bytes,
                uuid=simulated_uuid(seed, index),
                name="Simulated GPU",
                source="simulated",
            )
            for index in range(count)
        ]

    def open(self) -> list[GpuSpec]:
        """Makes the directories and says in each how big the GPU is.

        Raises:
            NoDriverError: the directory cannot be made, or belongs to somebody else.
        """
        try:
            self._claim_root()
            for spec in self._specs:
                folder = self._root / spec.uuid
                folder.mkdir(mode=0o700, exist_ok=True)
                device = {"total_bytes": spec.total_bytes, "uuid": spec.uuid, "index": spec.index}
                draft = folder / f".gpu.json.{os.getpid()}"
                draft.write_text(json.dumps(device) + "\n")
                draft.replace(folder / "gpu.json")
        except OSError as error:
            message = f"simulated GPUs need the directory {self._root}: {error}"
            raise NoDriverError(message) from error
        return list(self._specs)

    def _claim_root(self) -> None:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = self._root.lstat()
        # Its usual place may be writable by everybody: whoever made it first must have been us.
        if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
            message = f"it belongs to user {status.st_uid}"
            raise PermissionError(message)

    def read(self, spec: GpuSpec) -> GpuReading:
        """Adds up what the living jobs of one GPU take.

        Raises:
            GpuLostError: the device's directory is gone.
        """
        try:
            names = os.listdir(self._root / spec.uuid)  # noqa: PTH208 - names are all that is wanted
        except OSError as error:
            message = f"the simulated device of {spec.key} is gone: {error}"
            raise GpuLostError(message) from error
        jobs = [job for name in sorted(names) if (job := self._job(spec, name)) is not None]
        used = min(sum(job.memory_bytes for job in jobs), spec.total_bytes)
        load = min(1.0, sum((job.utilization_ratio for job in jobs), 0.0))
        return GpuReading(
            time=0.0,
            memory_used_bytes=used,
            memory_free_bytes=spec.total_bytes - used,
            utilization_ratio=load,
            memory_bandwidth_ratio=BANDWIDTH_SHARE * load,
            power_watts=_between(IDLE_WATTS, FULL_WATTS, load),
            power_limit_watts=FULL_WATTS,
            temperature_celsius=_between(IDLE_CELSIUS, FULL_CELSIUS, load),
            sm_clock_hertz=round(_between(IDLE_HERTZ, FULL_HERTZ, load)),
            processes=tuple(GpuProcess(job.process, job.memory_bytes) for job in jobs),
        )

    def close(self) -> None:
        """Leaves the directories: jobs that run on find the same device after a restart."""

    def _job(self, spec: GpuSpec, name: str) -> Job | None:
        match = JOB_FILE.fullmatch(name)
        if match is None:
            return None
        path = self._root / spec.uuid / name
        job = _parse(int(match[1]), path)
        if job is not None and not is_alive(job.process):
            with suppress(OSError):
                path.unlink()
            return None
        return job


def _parse(pid: int, path: Path) -> Job | None:
    """What a job's file says; None for one that is gone or makes no sense: a job cannot harm the arbiter."""
    try:
        # Not blocking: a FIFO would wait for its writer for ever.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123 - of a descriptor
            said: Any = json.loads(file.read(MAX_FILE_BYTES))
        process = ProcessId(int(said["pid"]), int(said["start_ticks"]))
        job = Job(process, int(said["memory_bytes"]), float(said["utilization_ratio"]))
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    sane = process.pid == pid and 0 <= job.memory_bytes <= MAX_JOB_BYTES and 0.0 <= job.utilization_ratio <= 1.0
    return job if sane else None


def _between(low: float, high: float, share: float) -> float:
    return low + (high - low) * share
