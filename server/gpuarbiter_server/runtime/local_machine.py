"""This machine, as the runtime needs it: the sampler of its GPUs and the watcher of its processes."""

import asyncio

from gpuarbiter_server.core.model import Holder, ProcessId
from gpuarbiter_server.gpu.processes import ProcessWatcher
from gpuarbiter_server.gpu.sampler import Sampler

# New holders are looked for descendants of after this long: pairs of acquire and release come and go.
_HOLDERS_DELAY = 0.05


class LocalMachine:
    """This machine, as the runtime needs it."""

    def __init__(self, sampler: Sampler, processes: ProcessWatcher) -> None:
        self._sampler = sampler
        self._processes = processes
        self._holders: set[ProcessId] = set()
        self._planned: asyncio.TimerHandle | None = None

    def trust(self, holder: Holder) -> ProcessId | None:
        """The holder's process where /proc agrees with what it declared."""
        return self._processes.trust(holder)

    def watch(self, process: ProcessId) -> None:
        """Tell when it is gone."""
        self._processes.watch(process)
        self._holders.add(process)
        self._plan()

    def unwatch(self, process: ProcessId) -> None:
        """Stop telling."""
        self._processes.unwatch(process)
        self._holders.discard(process)
        self._plan()

    def refresh(self, gpus: frozenset[str]) -> None:
        """Read these GPUs at once."""
        self._sampler.refresh(gpus)

    def sample_fast(self, gpus: frozenset[str]) -> None:
        """Read these GPUs often."""
        self._sampler.fast(gpus)

    def _plan(self) -> None:
        if self._planned is None:
            self._planned = asyncio.get_running_loop().call_later(_HOLDERS_DELAY, self._tell)

    def _tell(self) -> None:
        self._planned = None
        self._sampler.watch_holders(frozenset(self._holders))
