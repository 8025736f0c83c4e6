"""The state of the fake driver, and what can happen to it.

The library reads the state from a text file before every call, if it changed. Lines: `version`, `start`, `error`
and `hang` for the driver, then one block per GPU or MIG instance that begins with `device PARENT INSTANCE`.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fakes.nvml.library import library

GIB = 2**30
# What the driver says for the memory of a process when it does not tell.
NOT_AVAILABLE = 2**64 - 1

# nvmlReturn_t
NOT_SUPPORTED = 3
DRIVER_NOT_LOADED = 9
GPU_IS_LOST = 15
UNKNOWN = 999

ALL = "*"


@dataclass
class FakeGpu:
    """A GPU or MIG instance. Change it inside `FakeNvml.change()`, or call `FakeNvml.write()` afterwards."""

    uuid: str
    name: str = "Fake GPU"
    total_bytes: int = 24 * GIB
    reserved_bytes: int = 512 * 2**20
    # Used by nobody in particular; the memory of the processes comes on top.
    base_used_bytes: int = 0
    # Instead of that sum.
    used_bytes: int | None = None
    bus: int = 1
    # Per cent: the GPU, its memory.
    load: tuple[int, int] = (0, 0)
    power_milliwatts: int = 60_000
    power_limit_milliwatts: int = 300_000
    celsius: int = 40
    megahertz: int = 1_000
    # (pid, kind) -> bytes; kind is C(ompute), G(raphics) or M(PS).
    processes: dict[tuple[int, str], int] = field(default_factory=dict)
    # C function, or "*" -> NVML's return code.
    errors: dict[str, int] = field(default_factory=dict)
    # C function, or "*" -> seconds at most; taking the entry out ends the calls that hang now.
    hangs: dict[str, float] = field(default_factory=dict)
    # Instances by number make this a GPU in MIG mode.
    instances: dict[int, "FakeGpu"] = field(default_factory=dict)
    # Like a real driver: processes that no longer exist are gone, and their memory is free.
    reap: bool = False


class FakeNvml:
    """A driver with `gpus` GPUs (or the ones given), whose state stands in `folder`."""

    def __init__(
        self,
        folder: Path,
        gpus: int | list[FakeGpu] = 1,
        *,
        total_bytes: int = 24 * GIB,
        reap: bool = False,
    ) -> None:
        if isinstance(gpus, int):
            gpus = [FakeGpu(f"GPU-fa4e0000-0000-4000-8000-{n:012x}", bus=n + 1) for n in range(gpus)]
            for gpu in gpus:
                gpu.total_bytes = total_bytes
                gpu.reap = reap
        self.gpus = gpus
        self.version = "580.1.fake"
        # For the driver as a whole, as those of a FakeGpu are for that one ("nvmlInit" included).
        self.errors: dict[str, int] = {}
        self.hangs: dict[str, float] = {}
        self._start = 1
        self._path = folder / "fake-nvml-state"
        self.write()

    @property
    def env(self) -> dict[str, str]:
        """What a process needs in its environment, when it starts, to meet this driver."""
        paths = [str(library().parent), os.environ.get("LD_LIBRARY_PATH", "")]
        return {"LD_LIBRARY_PATH": os.pathsep.join(filter(None, paths)), "FAKE_NVML_STATE": str(self._path)}

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """Makes pynvml in this very process meet this driver."""
        import pynvml

        before = pynvml.nvmlLib, os.environ.get("FAKE_NVML_STATE")
        os.environ["FAKE_NVML_STATE"] = str(self._path)
        pynvml.nvmlLib = ctypes.CDLL(str(library()))
        pynvml._nvmlGetFunctionPointer_cache.clear()
        try:
            yield
        finally:
            pynvml.nvmlLib = before[0]
            pynvml._nvmlGetFunctionPointer_cache.clear()
            if before[1] is None:
                del os.environ["FAKE_NVML_STATE"]
            else:
                os.environ["FAKE_NVML_STATE"] = before[1]

    # -- what happens to a GPU (by its place in `gpus`) --

    def allocate(self, gpu: int, pid: int, bytes_: int = NOT_AVAILABLE, *, kind: str = "C") -> None:
        """A process now holds so much memory in all; without a figure, the driver does not tell how much."""
        with self.change():
            self.gpus[gpu].processes[pid, kind] = bytes_

    def free(self, gpu: int, pid: int) -> None:
        """A process has left the GPU."""
        with self.change():
            for key in [key for key in self.gpus[gpu].processes if key[0] == pid]:
                del self.gpus[gpu].processes[key]

    def unsupported(self, gpu: int, *functions: str) -> None:
        """These functions, by their names in C, answer NOT_SUPPORTED."""
        with self.change():
            self.gpus[gpu].errors.update(dict.fromkeys(functions, NOT_SUPPORTED))

    def lose(self, gpu: int) -> None:
        """The GPU falls off the bus."""
        with self.change():
            self.gpus[gpu].errors[ALL] = GPU_IS_LOST

    def hang(self, gpu: int, seconds: float, function: str = ALL) -> None:
        """Calls for this GPU hang for so long, or until `restore`."""
        with self.change():
            self.gpus[gpu].hangs[function] = seconds

    def restore(self, gpu: int) -> None:
        """Errors, loss and hanging calls of this GPU are over."""
        with self.change():
            self.gpus[gpu].errors.clear()
            self.gpus[gpu].hangs.clear()

    # -- what happens to the driver --

    def driver_gone(self, code: int = DRIVER_NOT_LOADED) -> None:
        """Every call answers with this code, nvmlInit too."""
        with self.change():
            self.errors[ALL] = code

    def driver_back(self) -> None:
        """Errors and hanging calls of the driver are over."""
        with self.change():
            self.errors.clear()
            self.hangs.clear()

    def forget(self) -> None:
        """NVML is uninitialized from now on, until nvmlInit."""
        with self.change():
            self._start += 1

    # -- the file --

    @contextmanager
    def change(self) -> Iterator[list[FakeGpu]]:
        """Whatever is changed inside takes effect at once, as a whole."""
        yield self.gpus
        self.write()

    def write(self) -> None:
        """Lets the library see the state."""
        lines = [f"version {self.version}", f"start {self._start}", *_rules(self.errors, self.hangs)]
        count = 0
        for gpu in self.gpus:
            parent = count
            lines += _device(gpu, -1, 0)
            count += 1
            for number, instance in gpu.instances.items():
                lines += _device(instance, parent, number)
                count += 1
        draft = self._path.with_suffix(f".{os.getpid()}")
        draft.write_text("\n".join(lines) + "\n")
        draft.replace(self._path)


def _device(gpu: FakeGpu, parent: int, number: int) -> list[str]:
    mig = [f"mig 1 {max(gpu.instances) + 1}"] if gpu.instances else []
    used = [] if gpu.used_bytes is None else [f"used {gpu.used_bytes}"]
    return [
        f"device {parent} {number}",
        f"uuid {gpu.uuid}",
        f"name {gpu.name}",
        f"bus {gpu.bus}",
        *mig,
        f"total {gpu.total_bytes}",
        f"reserved {gpu.reserved_bytes}",
        f"base_used {gpu.base_used_bytes}",
        *used,
        f"load {gpu.load[0]} {gpu.load[1]}",
        f"power {gpu.power_milliwatts} {gpu.power_limit_milliwatts}",
        f"celsius {gpu.celsius}",
        f"megahertz {gpu.megahertz}",
        f"reap {int(gpu.reap)}",
        *(f"process {pid} {bytes_} {kind}" for (pid, kind), bytes_ in gpu.processes.items()),
        *_rules(gpu.errors, gpu.hangs),
    ]


def _rules(errors: dict[str, int], hangs: dict[str, float]) -> list[str]:
    failing = [f"error {function} {code}" for function, code in errors.items()]
    return failing + [f"hang {function} {seconds}" for function, seconds in hangs.items()]
