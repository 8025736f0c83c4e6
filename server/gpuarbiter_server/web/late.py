"""An application that is made when it is first asked for.

FastAPI takes a third of a second to import and megabytes to have: only those pay who use it. It is made on a thread, so
that leases are granted meanwhile.
"""

import asyncio
import gc
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send


class Late:
    """Stands in for what `make` makes."""

    def __init__(self, make: Callable[[], ASGIApp]) -> None:
        self._make = make
        self._made: ASGIApp | None = None
        self._making = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands on."""
        async with self._making:
            if self._made is None:
                self._made = await asyncio.to_thread(self._make)
                # As at the start: what was imported stays, and is looked at no more. A look at all of it, on whatever
                # thread, would hold up the loop for a tenth of a second.
                gc.freeze()
        await self._made(scope, receive, send)
