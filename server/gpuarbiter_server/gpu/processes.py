"""Holders as processes: which pid to believe, and the kernel's word when one is gone.

Law: a pid is trusted only when the holder names our own PID namespace and the start time that /proc
shows; a death is reported only once the kernel says so (pidfd_open(2)), and for that very process, never for a
later one with its pid. Where the platform has no pidfd, no pid is trusted.

Everything here belongs to the event loop's thread. What /proc itself says is in `procfs`.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

from gpuarbiter_server.core.events import ProcessExited
from gpuarbiter_server.core.model import Holder, ProcessId
from gpuarbiter_server.gpu.procfs import (
    ancestors,
    descendants,
    identify,
    is_alive,
    own_pid_namespace,
    start_ticks,
)

__all__ = [
    "ProcessWatcher",
    "ancestors",
    "descendants",
    "identify",
    "is_alive",
    "own_pid_namespace",
    "start_ticks",
]

log = logging.getLogger(__name__)

# Each watch keeps a file descriptor open.
MAX_WATCHES = 4096
# A holder that acquires and releases in turn is unwatched and watched again: keep its pidfd meanwhile.
LINGER_SECONDS = 5.0
# How soon the death of a process is noticed that got no pidfd (no file descriptor left).
POLL_SECONDS = 1.0


@dataclass(slots=True)
class _Watch:
    # None for one that is polled, or whose death was seen before it was opened.
    fd: int | None = None
    # None while somebody wants to know.
    lingering: asyncio.TimerHandle | None = None


class ProcessWatcher:
    """Says which holders to trust, and delivers ProcessExited for those that are watched."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        deliver: Callable[[ProcessExited], None],
        *,
        max_watches: int = MAX_WATCHES,
        linger: float = LINGER_SECONDS,
    ) -> None:
        self._loop = loop
        self._deliver = deliver
        self._max_watches = max_watches
        self._linger = linger
        self._namespace = own_pid_namespace() if hasattr(os, "pidfd_open") else 0
        self._watches: dict[ProcessId, _Watch] = {}
        self._polled: set[ProcessId] = set()
        self._polling: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many processes are watched, lingering ones included."""
        return len(self._watches)

    def trust(self, holder: Holder) -> ProcessId | None:
        """The process that a holder says it is, if what it says is proved; otherwise None."""
        if not self._namespace or holder.pid <= 0 or holder.pid_namespace != self._namespace:
            return None
        process = ProcessId(holder.pid, holder.process_start_ticks)
        watch = self._watches.get(process)
        if watch is not None and watch.fd is not None:
            # The kernel would have told us of its death, and its pid is not free before.
            return process
        if watch is None and len(self._watches) >= self._max_watches and not self._forget_lingering():
            return None
        return process if process.start_ticks > 0 and is_alive(process) else None

    def watch(self, process: ProcessId) -> None:
        """Reports the death of a process from now on, also one that is dead already. Idempotent."""
        watch = self._watches.get(process)
        if watch is not None:
            if watch.lingering is not None:
                watch.lingering.cancel()
                watch.lingering = None
            return
        watch = self._watches[process] = _Watch()
        try:
            watch.fd = os.pidfd_open(process.pid)
        except ProcessLookupError:
            self._loop.call_soon(self._gone, process)
            return
        except OSError as error:
            log.warning("process %d has to be polled: pidfd_open said %s", process.pid, error)
            self._polled.add(process)
            self._poll_later()
            return
        self._loop.add_reader(watch.fd, self._gone, process)
        # Only now can the pid not be given to another any more: was it still the one that was meant?
        if not is_alive(process):
            self._loop.call_soon(self._gone, process)

    def unwatch(self, process: ProcessId) -> None:
        """Stops reporting; the watch itself lingers, as the same holder is likely to be back. Idempotent."""
        watch = self._watches.get(process)
        if watch is not None and watch.lingering is None:
            watch.lingering = self._loop.call_later(self._linger, self._drop, process)

    def close(self) -> None:
        """Lets go of every watch; nothing is delivered afterwards."""
        for process in list(self._watches):
            self._drop(process)
        if self._polling is not None:
            self._polling.cancel()
            self._polling = None

    def _gone(self, process: ProcessId) -> None:
        watch = self._watches.get(process)
        if watch is None:
            return
        wanted = watch.lingering is None
        self._drop(process)
        if wanted:
            self._deliver(ProcessExited(process))

    def _drop(self, process: ProcessId) -> None:
        watch = self._watches.pop(process)
        self._polled.discard(process)
        if watch.lingering is not None:
            watch.lingering.cancel()
        if watch.fd is not None:
            self._loop.remove_reader(watch.fd)
            os.close(watch.fd)

    def _forget_lingering(self) -> bool:
        """Makes room: the longest known watch that nobody wants any more goes."""
        for process, watch in self._watches.items():
            if watch.lingering is not None:
                self._drop(process)
                return True
        return False

    def _poll_later(self) -> None:
        if self._polling is None:
            self._polling = self._loop.call_later(POLL_SECONDS, self._poll)

    def _poll(self) -> None:
        self._polling = None
        for process in list(self._polled):
            if not is_alive(process):
                self._gone(process)
        if self._polled:
            self._poll_later()
