"""An event loop whose time passes only while everybody waits, and then at once: no test of waiting waits.

What is awaited must end by timers and tasks of the loop; where nothing can happen any more, it fails.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    """Where the real one would wait, time jumps."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise RuntimeError("everybody waits, and nothing will happen any more")
        self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its clock starts at zero."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)
        # A timer that is due counts as due, whatever rounding did to the sum.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self._virtual.now


def run_virtually(work: Coroutine[Any, Any, T]) -> T:
    """Runs it on a loop of its own."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
