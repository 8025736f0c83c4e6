"""One GPU or lock that goes from hand to hand: how long it is idle in between."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
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


@dataclass
class HandOffs:
    """How it went from hand to hand."""

    # Seconds from each release that was sent to the next grant.
    gaps: list[float] = field(default_factory=list)
    # Those of them that went to another than who had just given it back.
    others: list[float] = field(default_factory=list)


async def observed(holders: Sequence[Holder], seconds: float) -> HandOffs:
    """Each asks again at once, and holds it for 3 ms."""
    found = HandOffs()
    released: list[tuple[float, Holder]] = []
    begin = time.perf_counter() + _BEGIN_SECONDS

    async def work(holder: Holder) -> None:
        while time.perf_counter() < begin + seconds:
            await holder.acquire()
            now = time.perf_counter()
            if released:
                at, who = released.pop()
                if at > begin:
                    found.gaps.append(now - at)
                    if who is not holder:
                        found.others.append(now - at)
            await asyncio.sleep(HOLD_SECONDS)
            released.append((time.perf_counter(), holder))
            await holder.release()

    await asyncio.gather(*map(work, holders))
    return found
