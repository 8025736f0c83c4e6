"""What it takes to be a source of GPUs.

Law: a backend answers questions when asked and remembers nothing that it could ask again. It has no
threads and no clock; whoever reads (the sampler) says when, and stamps the reading with its time.
"""

from typing import Protocol

from gpuarbiter_server.core.model import GpuReading, GpuSpec


class NoDriverError(Exception):
    """There are no GPUs to be had from this backend. The message says why, for an operator."""


class GpuLostError(Exception):
    """A GPU gives no readings now. Asking again later is right: it may come back."""


class DriverGoneError(GpuLostError):
    """Not this GPU alone: the driver or its library does not answer at all."""


class GpuBackend(Protocol):
    """A source of GPUs. `read` is called from one thread per GPU, at the same time for different ones."""

    def open(self) -> list[GpuSpec]:
        """Finds the GPUs. May block for long; the caller may give up on it and never look back.

        Raises:
            NoDriverError: there are none, or they cannot be reached.
        """
        ...

    def read(self, spec: GpuSpec) -> GpuReading:
        """Looks at one GPU. May block. A value that the GPU does not report is None.

        `time` is left at 0, and a process has 0 for start ticks where the source knows only its
        pid: both are for the sampler to fill in.

        Raises:
            GpuLostError: the GPU gives no reading; DriverGoneError when none would.
        """
        ...

    def close(self) -> None:
        """Lets go of the source. Never raises; a backend that was never opened may be closed."""
        ...
