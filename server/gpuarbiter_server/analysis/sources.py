"""Where samples come from, as the service needs it."""

from typing import Protocol

from gpuarbiter_server.analysis.model import GpuWindow


class SourceError(Exception):
    """The samples cannot be had; says why, for people."""


class Source(Protocol):
    """Samples of GPUs."""

    @property
    def name(self) -> str:
        """What people call it."""

    async def windows(self) -> list[GpuWindow]:
        """Every GPU that has samples in the window that ends now; raises SourceError."""

    async def close(self) -> None:
        """Gives back what it holds."""
