"""Keeps track of the descendants of holders: whoever a holder started may use the GPU on its lease.

Law: once seen as a descendant, a process stays one for as long as it lives, and so do its own children,
also after the parent between it and the holder, or the holder itself, died.
"""

import logging
import threading
from collections.abc import Callable

from gpuarbiter_server.core.events import DescendantsSeen
from gpuarbiter_server.core.model import ProcessId
from gpuarbiter_server.gpu.pace import Pace
from gpuarbiter_server.gpu.procfs import cheapest_children, descendants, is_alive

log = logging.getLogger(__name__)


class FamilyWatch:
    """Looks at the descendants of the watched holders at regular intervals, in a thread of its own."""

    def __init__(self, interval: float, deliver: Callable[[DescendantsSeen], None]) -> None:
        # Without a holder there is nothing to look at, and no reason to wake up.
        self.pace = Pace(None)
        self._interval = interval
        self._deliver = deliver
        self._lock = threading.Lock()
        self._holders: frozenset[ProcessId] = frozenset()
        # Watched anew: whoever asks for them knows nothing of what was delivered before.
        self._fresh: frozenset[ProcessId] = frozenset()
        self._seen: dict[ProcessId, frozenset[ProcessId]] = {}

    def watch(self, holders: frozenset[ProcessId]) -> None:
        """Watches exactly these holders from now on. May be called from any thread."""
        with self._lock:
            added = holders - self._holders
            self._fresh |= added
            self._holders = holders
        self.pace.set_interval(self._interval if holders else None)
        if added:
            self.pace.ask()

    def run(self) -> None:
        """Looks until the pace is stopped."""
        while self.pace.wait():
            try:
                self._look()
            except Exception:
                # A defect of ours must not end the thread: what NVML lists comes with its ancestors anyway.
                log.exception("looking for the descendants of holders failed")

    def _look(self) -> None:
        with self._lock:
            holders, fresh, self._fresh = self._holders, self._fresh, frozenset()
        alive = {holder: self._still_alive(holder) for holder in holders}
        children = cheapest_children({process.pid for family in alive.values() for process in family})
        before, self._seen = self._seen, {}
        for holder, family in alive.items():
            found = {*family, *descendants(*(process.pid for process in family), children=children)}
            now: frozenset[ProcessId] = frozenset(found - {holder})
            self._seen[holder] = now
            known = frozenset() if holder in fresh else before.get(holder, frozenset())
            if now != known and not self.pace.stopped:
                self._deliver(DescendantsSeen(holder, tuple(sorted(now))))

    def _still_alive(self, holder: ProcessId) -> list[ProcessId]:
        return [process for process in (holder, *self._seen.get(holder, ())) if is_alive(process)]
