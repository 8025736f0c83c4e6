"""One NVML call at a time.

Law: every error is counted, and every error code is sorted here: does it cost a value, a GPU or the driver?
"""

import threading
from collections import Counter
from types import ModuleType
from typing import Any

from gpuarbiter_server.gpu.backend import DriverGoneError, GpuLostError, NoDriverError

# NVML return codes (nvml.h, nvmlReturn_t) after which this GPU cannot be asked anything.
GPU_LOST = frozenset({15, 16, 28})  # GPU_IS_LOST, RESET_REQUIRED, GPU_NOT_FOUND
# And those after which nothing can. A library that does not match the loaded driver: the driver was updated.
DRIVER_GONE = frozenset({1, 9, 12, 18})  # UNINITIALIZED, DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND, LIB_RM_VERSION_MISMATCH
NOT_SUPPORTED = frozenset({3, 13})  # NOT_SUPPORTED, FUNCTION_NOT_FOUND

ADVICE = {
    9: "the NVIDIA driver is not loaded (is the kernel module there?)",
    12: "libnvidia-ml.so.1 was not found: no NVIDIA driver is installed, or this container was not given it",
    18: "the NVIDIA library does not match the driver that is loaded: the driver was updated, restart the machine",
}


class NvmlCalls:
    """Calls of `nvml`, the module pynvml, by name, with their errors counted and sorted."""

    def __init__(self, nvml: ModuleType, errors: Counter[tuple[str, str]]) -> None:
        self._nvml = nvml
        self._errors = errors
        self._counting = threading.Lock()

    def start(self) -> None:
        """Loads the library and starts NVML. May hang where the driver does.

        Raises:
            NoDriverError: with the reason, and what to do where that is known.
        """
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            self._count("nvmlInit", error)
            message = f"NVML does not start: {ADVICE.get(error.value, error)}"
            raise NoDriverError(message) from error

    def shut_down(self) -> None:
        """Ends NVML; what it says to that is of no interest."""
        try:
            self._nvml.nvmlShutdown()
        except self._nvml.NVMLError as error:
            self._count("nvmlShutdown", error)

    def ask(self, call: str, *arguments: object) -> Any:
        """The answer, or None when this one thing cannot be told.

        Raises:
            GpuLostError: the GPU does not answer; DriverGoneError: the driver does not.
        """
        return self.try_to(call, *arguments)[0]

    def try_to(self, call: str, *arguments: object) -> tuple[Any, int]:
        """The answer and 0, or None and NVML's code of what kept it from answering. Raises as `ask` does."""
        try:
            return getattr(self._nvml, call)(*arguments), 0
        except self._nvml.NVMLError as error:
            self._count(call, error)
            code: int = error.value
            message = f"{call}: {error}"
            if code in GPU_LOST:
                raise GpuLostError(message) from error
            if code in DRIVER_GONE:
                raise DriverGoneError(message) from error
            return None, code

    def find(self, uuid: str) -> Any:
        """The handle of a GPU or MIG instance.

        Raises:
            GpuLostError: there is none of that UUID.
        """
        handle = self.ask("nvmlDeviceGetHandleByUUID", uuid)
        if handle is None:
            message = f"the driver does not know a GPU {uuid} any more"
            raise GpuLostError(message)
        return handle

    def constant(self, name: str) -> Any:
        """A constant of pynvml."""
        return getattr(self._nvml, name)

    def _count(self, call: str, error: Exception) -> None:
        with self._counting:
            self._errors[call, _short_name(error)] += 1


def _short_name(error: Any) -> str:
    """NotSupported for NVMLError_NotSupported; the code where pynvml has no class for it."""
    name = type(error).__name__
    return name.removeprefix("NVMLError_") if name != "NVMLError" else f"code {error.value}"
