"""Turns the pids that a driver lists into processes: since when they live, and whose children they are.

Law: a pid of another PID namespace is never taken for a process of ours. A driver tells pids either
as the caller's namespace has them, leaving out what that namespace cannot see, or as the machine has them. So:

- none of the listed pids was ever seen in our /proc: they are another namespace's; `processes` is None;
- in a PID namespace of our own (a container), an empty list while memory is taken: somebody is there whom we
  cannot see; None, so that nobody takes the GPU for empty;
- a single pid that is gone is a process that ended: it is left out, and its memory counts as used.

One Lineage serves one GPU, in one thread. What it found about a process is kept for as long as the process is
listed: parents that died since stay in it, which is what attribution wants (a child that lost its parent
still belongs to the lease).
"""

from dataclasses import replace

from gpuarbiter_server.core.model import GpuProcess, GpuReading, ProcessId
from gpuarbiter_server.gpu.procfs import INITIAL_PID_NAMESPACE, ancestors, own_pid_namespace, read_stat

# What an idle GPU may show as used without anybody on it (driver bookkeeping, page tables).
IDLE_BYTES = 64 * 2**20


class Lineage:
    """Completes the process list of one GPU's readings."""

    def __init__(self, *, sees_all: bool | None = None) -> None:
        """`sees_all`: whether we see every process of the machine; by default, as our PID namespace says."""
        self._sees_all = own_pid_namespace() == INITIAL_PID_NAMESPACE if sees_all is None else sees_all
        # The last list; its size is the driver's own.
        self._known: dict[ProcessId, GpuProcess] = {}

    def complete(self, reading: GpuReading) -> GpuReading:
        """The same reading with start times, names and ancestors, or without processes where they mislead."""
        listed = reading.processes
        if listed is None:
            return reading
        if not listed:
            self._known = {}
            hidden = not self._sees_all and (reading.memory_used_bytes or 0) > IDLE_BYTES
            return replace(reading, processes=None) if hidden else reading
        before = {process.pid for process in self._known}
        found = [process for entry in listed if (process := self._find(entry)) is not None]
        self._known = {process.process: process for process in found}
        if not found and not any(entry.process.pid in before for entry in listed):
            return replace(reading, processes=None)
        return replace(reading, processes=tuple(found))

    def _find(self, entry: GpuProcess) -> GpuProcess | None:
        pid, start = entry.process
        stat = read_stat(pid)
        if stat is None or start not in (0, stat.start_ticks):
            return None
        process = ProcessId(pid, stat.start_ticks)
        known = self._known.get(process)
        parents = ancestors(process) if known is None else known.ancestors
        return GpuProcess(process, entry.used_bytes, parents, stat.name)
