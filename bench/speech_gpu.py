"""A GPU that computes nothing, and yet slows down and runs out of memory when too much is put on it.

Memory is that of a simulated GPU, as the arbiter sees it. Time is sliced as a device does among processes: of n that
run at once, each gets a share of 1/n, and each but the first costs a tenth for switching between them.
"""

import asyncio
import time
from pathlib import Path

from gpuarbiter import sim

_SWITCHING = 0.1


class Gpu:
    """The only simulated GPU under a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # What is left to be done, in seconds of the GPU for itself.
        self._left: dict[asyncio.Future[None], float] = {}
        self._seen = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def compute(self, seconds: float, memory: str) -> None:
        """Takes so long with the GPU for itself, and so much memory meanwhile.

        Raises:
            SimulatedOutOfMemory: there is no room.
        """
        with sim.SimulatedMemory(memory, "0", folder=self._folder):
            done = asyncio.get_running_loop().create_future()
            self._advance()
            self._left[done] = seconds
            self._plan()
            try:
                await done
            finally:
                self._advance()
                self._left.pop(done, None)
                self._plan()

    def _rate(self) -> float:
        """How fast each of those goes that are there now; 1 with the GPU for itself."""
        count = max(1, len(self._left))
        return 1 / (count * (1 + _SWITCHING * (count - 1)))

    def _advance(self) -> None:
        """Counts what was done since it was last looked at."""
        now = time.perf_counter()
        share = (now - self._seen) * self._rate()
        self._seen = now
        self._left = {done: left - share for done, left in self._left.items()}

    def _plan(self) -> None:
        """Looks again when the next is done."""
        if self._timer is not None:
            self._timer.cancel()
        if self._left:
            seconds = max(0.0, min(self._left.values())) / self._rate()
            self._timer = asyncio.get_running_loop().call_later(seconds, self._finish)

    def _finish(self) -> None:
        self._advance()
        for done in [done for done, left in self._left.items() if left <= 1e-6]:
            del self._left[done]
            if not done.done():
                done.set_result(None)
        self._plan()
