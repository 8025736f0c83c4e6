"""GPUs as the NVIDIA driver shows them, through NVML; the only place that imports pynvml.

Law: a query that fails costs its own value; a GPU that is lost costs its own readings; a driver that is gone costs
all readings, and each comes back by itself, because every later read tries again.

A GPU is named by its place in PCI bus order ("gpu:0" has the lowest bus id), which is the order of CUDA
with CUDA_DEVICE_ORDER=PCI_BUS_ID. NVML's own index is usually the same, but its documentation promises
nothing; where a bus id cannot be had, NVML's order stands. A GPU that cannot be opened keeps its number, so that
the others keep theirs.

Threads: `read` runs in one thread per GPU. No lock is held during a query, so that a call that hangs for one
GPU stops nobody else; nor does an NVML that hangs while it starts again stop a GPU that answers.
"""

import threading
from collections import Counter
from typing import Any

from gpuarbiter_server.core.model import GpuReading, GpuSpec
from gpuarbiter_server.gpu.backend import DriverGoneError, GpuLostError, NoDriverError
from gpuarbiter_server.gpu.nvml_calls import NvmlCalls
from gpuarbiter_server.gpu.nvml_queries import find_gpus, read_gpu

# A reading that a restart of NVML has spoilt is taken once more.
ATTEMPTS = 2


class NvmlBackend:
    """The GPUs of this machine's NVIDIA driver."""

    def __init__(self) -> None:
        # How often each call failed, and how: (call, error), such as ("nvmlDeviceGetPowerUsage", "NotSupported").
        self.errors: Counter[tuple[str, str]] = Counter()
        self._calls: NvmlCalls | None = None
        self._handles: dict[str, Any] = {}
        # GPUs without memory of their own: the system's stands in.
        self._unified: frozenset[str] = frozenset()
        # Counts the starts of NVML: a handle is good for one of them.
        self._generation = 0
        # Held for moments only, unlike the other one: NVML may take its time to start, or hang.
        self._state = threading.Lock()
        self._restarting = threading.Lock()
        self._closed = False

    def open(self) -> list[GpuSpec]:
        """Starts NVML and lists its GPUs; those in MIG mode as their instances.

        Raises:
            NoDriverError: no library, no driver, or no GPU.
        """
        try:
            # Here and not above: a machine without it can still run this program.
            import pynvml
        except ImportError as error:
            message = f"the package nvidia-ml-py is not installed ({error})"
            raise NoDriverError(message) from error
        calls = NvmlCalls(pynvml, self.errors)
        calls.start()
        try:
            found = find_gpus(calls)
        except GpuLostError as error:
            calls.shut_down()
            message = f"the NVIDIA driver stopped answering: {error}"
            raise NoDriverError(message) from error
        if not found:
            calls.shut_down()
            raise NoDriverError("the NVIDIA driver answers, but has no GPU (or MIG instance) to offer")
        if self._closed:
            # Whoever opened it gave up waiting, and is not there any more to close what came late.
            calls.shut_down()
            raise NoDriverError("NVML took too long to start and was given up")
        self._handles = {gpu.spec.key: gpu.handle for gpu in found}
        self._unified = frozenset(gpu.spec.key for gpu in found if gpu.unified)
        self._calls = calls
        return [gpu.spec for gpu in found]

    def read(self, spec: GpuSpec) -> GpuReading:
        """Asks for everything that a reading holds.

        Raises:
            GpuLostError: this GPU does not answer; DriverGoneError: none does.
        """
        calls = self._calls
        if calls is None:
            raise DriverGoneError("NVML was not opened")
        for _ in range(ATTEMPTS):
            generation, handle = self._handle(calls, spec)
            try:
                reading = read_gpu(calls, handle, unified=spec.key in self._unified)
            except GpuLostError as error:
                if self._give_up(spec, generation, error):
                    raise
            else:
                if generation == self._generation:
                    return reading
        message = f"NVML was started again whenever {spec.key} was being read"
        raise GpuLostError(message)

    def close(self) -> None:
        """Shuts NVML down."""
        self._closed = True
        calls, self._calls = self._calls, None
        if calls is not None:
            calls.shut_down()

    def _handle(self, calls: NvmlCalls, spec: GpuSpec) -> tuple[int, Any]:
        """The GPU's handle, and which start of NVML it is good for; a lost GPU is looked for again.

        NVML as a whole is started again only when no GPU answers: for one that comes back among
        others a new handle has to do, as a restart would disturb those.
        """
        with self._state:
            generation, handle = self._generation, self._handles.get(spec.key)
        if handle is not None:
            return generation, handle
        with self._restarting:
            if not self._handles:
                calls.shut_down()
                try:
                    calls.start()
                except NoDriverError as error:
                    raise DriverGoneError(str(error)) from error
                with self._state:
                    self._generation += 1
            # Inside the lock, so that whoever waits for it finds that NVML answers, and does not start it again.
            handle = calls.find(spec.uuid)
            with self._state:
                self._handles[spec.key] = handle
                return self._generation, handle

    def _give_up(self, spec: GpuSpec, generation: int, error: GpuLostError) -> bool:
        """Drops the handles that are of no use now; False when they were dropped already by a restart."""
        with self._state:
            if generation != self._generation:
                return False
            if isinstance(error, DriverGoneError):
                self._handles.clear()
            else:
                self._handles.pop(spec.key, None)
            return True
