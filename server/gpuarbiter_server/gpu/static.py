"""GPUs that are known from the configuration alone: nothing looks at them.

Law: no reading ever comes from here, so declarations alone decide what fits.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import NoReturn

from gpuarbiter_server.core.model import GpuSpec
from gpuarbiter_server.gpu.backend import GpuLostError


class StaticBackend:
    """Configured GPUs, on machines without NVML."""

    def __init__(self, specs: Iterable[GpuSpec]) -> None:
        self._specs = [replace(spec, monitored=False, source="configured") for spec in specs]

    def open(self) -> list[GpuSpec]:
        """Hands out the configured GPUs, as ones without readings."""
        return list(self._specs)

    def read(self, spec: GpuSpec) -> NoReturn:
        """Never answers.

        Raises:
            GpuLostError: always.
        """
        message = f"{spec.key} is known from the configuration alone and gives no readings"
        raise GpuLostError(message)

    def close(self) -> None:
        """Does nothing: nothing was opened."""
