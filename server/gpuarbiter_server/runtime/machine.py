"""What the core wants of the machine it runs on, as the runtime needs it."""

from typing import Protocol

from gpuarbiter_server.core.model import Holder, ProcessId


class Machine(Protocol):
    """The GPUs' sampler and the processes' watcher, from the loop's side. Nothing here may block."""

    def trust(self, holder: Holder) -> ProcessId | None:
        """The holder's process where /proc agrees with what it declared; otherwise None."""

    def watch(self, process: ProcessId) -> None:
        """Tell with ProcessExited when it is gone."""

    def unwatch(self, process: ProcessId) -> None:
        """Stop telling."""

    def refresh(self, gpus: frozenset[str]) -> None:
        """Read these GPUs at once."""

    def sample_fast(self, gpus: frozenset[str]) -> None:
        """Read these GPUs often, and the others at the normal pace."""
