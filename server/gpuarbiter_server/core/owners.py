"""Which holder a process belongs to: the holder itself, or whoever it descends from.

Law: a process once seen under a holder stays its, also after its parent died. What is remembered is
bounded; the oldest is forgotten first.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable

from gpuarbiter_server.core.model import GpuProcess, ProcessId

_REMEMBERED = 4096


class Owners:
    """The living holders and all that was seen to descend from them."""

    def __init__(self) -> None:
        self._holders: Counter[ProcessId] = Counter()
        self._lineage: OrderedDict[ProcessId, ProcessId] = OrderedDict()
        # Rises when an answer of `holder_of` may have changed.
        self.version = 0

    def add(self, holder: ProcessId) -> None:
        """One more request or lease has this holder."""
        self._holders[holder] += 1
        if self._holders[holder] == 1:
            self.version += 1

    def drop(self, holder: ProcessId) -> None:
        """One request or lease less has this holder."""
        self._holders[holder] -= 1
        if not self._holders[holder]:
            del self._holders[holder]
            self.version += 1

    def holder_of(self, seen: GpuProcess) -> ProcessId | None:
        """The holder that a process on a GPU belongs to; the nearest, where holders are nested."""
        if seen.process in self._holders:
            return seen.process
        for ancestor in seen.ancestors:
            holder = ancestor if ancestor in self._holders else self._lineage.get(ancestor)
            if holder is not None:
                self._remember(seen.process, holder)
                return holder
        return self._lineage.get(seen.process)

    def learn(self, holder: ProcessId, descendants: Iterable[ProcessId]) -> None:
        """These processes descend from the holder."""
        for process in descendants:
            if process not in self._holders and self._lineage.get(process) != holder:
                self._remember(process, holder)
                self.version += 1

    def family(self, holder: ProcessId) -> set[ProcessId]:
        """The holder and its remembered descendants."""
        return {holder} | {process for process, root in self._lineage.items() if root == holder}

    def forget(self, process: ProcessId) -> None:
        """The process is gone."""
        self._lineage.pop(process, None)

    def _remember(self, process: ProcessId, holder: ProcessId) -> None:
        self._lineage[process] = holder
        self._lineage.move_to_end(process)
        if len(self._lineage) > _REMEMBERED:
            self._lineage.popitem(last=False)
