"""Back-pressure: so many may be in flight, and whoever comes next waits, first come first served.

Law: a place that is handed to somebody who was cancelled in the same moment is handed on.
"""

import asyncio
from collections import deque


class Places:
    """A number of places."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Takes a place, when there is one.

        Raises:
            Exception: what `refuse` was told, meanwhile.
        """
        if self._free:
            self._free -= 1
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif not waiter.cancelled() and waiter.exception() is None:
                self.give_back()
            raise

    def give_back(self) -> None:
        """A place is free."""
        while self._waiting:
            waiter = self._waiting.popleft()
            # One that is being cancelled is done already, and takes nothing.
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1

    def refuse(self, error: Exception) -> None:
        """Whoever waits gets this."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(error)
