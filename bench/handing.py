"""One GPU or lock that goes from hand to hand: how long it is idle in between."""

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

CLIENTS = 16
HOLD_SECONDS = 0.003
# All queue up first.
_BEGIN_SECONDS = 0.2


class Holder(Protocol):
    """Whoever takes it and gives it back."""

    async def acquire(self) -> None:
        """Returns once it has it."""

    async def release(self) -> None:
        """Returns once that is answered."""


async def gaps(holders: Sequence[Holder], seconds: float, *, held: float = HOLD_SECONDS) -> list[float]:
    """Seconds from a release that is sent to the next grant, while each holds it for so long, again and again."""
    found: list[float] = []
    released_at: list[float] = []
    begin = time.perf_counter() + _BEGIN_SECONDS

    async def work(holder: Holder) -> None:
        while time.perf_counter() < begin + seconds:
            await holder.acquire()
            now = time.perf_counter()
            if released_at:
                at = released_at.pop()
                if at > begin:
                    found.append(now - at)
            await asyncio.sleep(held)
            released_at.append(time.perf_counter())
            await holder.release()

    await asyncio.gather(*map(work, holders))
    return found
