"""Whether the arbiter takes requests, and what it says of that: gRPC health, /readyz."""

import asyncio
from collections.abc import Awaitable, Callable

from gpuarbiter_server.core.effects import Serving


class Readiness:
    """Takes requests unless it is stopping or the core cannot grant."""

    def __init__(self) -> None:
        self._stopping = False
        self._fault = ""
        self._news = asyncio.Event()

    @property
    def missing(self) -> str | None:
        """Why requests are not served; None when they are."""
        return ("stopping" if self._stopping else self._fault) or None

    def stop(self) -> None:
        """For good."""
        self._stopping = True
        self._news.set()

    def serving(self, serving: Serving) -> None:
        """What the core says."""
        self._fault = "" if serving.up else serving.detail
        self._news.set()

    async def announce(self, tell: Callable[[bool], Awaitable[None]]) -> None:
        """Tells whether requests are served, now and whenever it changes, without end."""
        while True:
            self._news.clear()
            await tell(self.missing is None)
            await self._news.wait()
