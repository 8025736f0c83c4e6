"""What the holder is told: callbacks, and the flag that wakes `wait_yield`.

Law: a callback runs beside the reader, never in its way; one that raises is logged and changes nothing.
They run one after the other, but one that takes long does not keep the next from being called.
"""

import contextvars
import logging
from collections.abc import Callable
from typing import Any

from gpuarbiter._aio import backend

logger = logging.getLogger("gpuarbiter")


_ORDER_SECONDS = 1.0


class AsyncNotices:
    """Tells one holder."""

    def __init__(self, on_yield: Callable[..., Any] | None, on_lost: Callable[..., Any] | None) -> None:
        self._on_yield = on_yield
        self._on_lost = on_lost
        # Raised when there is something to look at: a yield request, a loss, the release.
        self.woken = backend.Event()
        self.lease: Any = None
        self._latest: backend.Background | None = None
        # The callbacks run in the context of whoever asked for the lease, whoever learns of what there is to tell.
        self._context = contextvars.copy_context()

    def forked(self) -> None:
        """The parent's reader is not here to tell of anything."""
        self.woken = backend.Event()
        self.woken.set()

    def yield_asked(self) -> None:
        """The arbiter asks for the GPU."""
        self.woken.set()
        if self._on_yield is not None:
            self._call("on_yield", self._on_yield, self.lease, self.lease.yield_requested)

    def lost(self) -> None:
        """The lease is lost."""
        self.woken.set()
        logger.warning("lease %s is lost: %s %s", self.lease.lease_id, self.lease.lost_reason, self.lease.lost_detail)
        if self._on_lost is not None:
            self._call("on_lost", self._on_lost, self.lease)

    def _call(self, name: str, function: Callable[..., Any], *arguments: Any) -> None:
        context = self._context.copy()  # it may be entered only once at a time
        try:
            self._latest = context.run(backend.spawn, self._run, self._latest, name, function, *arguments)
        except RuntimeError:  # no thread can be started any more
            logger.exception("%s could not be called", name)

    async def _run(
        self, before: "backend.Background | None", name: str, function: Callable[..., Any], *arguments: Any
    ) -> None:
        if before is not None:
            await backend.settle([before], _ORDER_SECONDS)
        try:
            await backend.call_back(function, *arguments)
        except Exception:
            logger.exception("%s raised", name)
