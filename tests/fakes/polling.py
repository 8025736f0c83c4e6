"""Waiting for a condition, bounded: what tests do instead of sleeping and hoping."""

import asyncio
import time
from collections.abc import Callable

PATIENCE_SECONDS = 10.0
_INTERVAL_SECONDS = 0.005


def until(condition: Callable[[], object], what: str = "") -> None:
    """Returns once the condition holds; fails when it does not within ten seconds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE_SECONDS} s in vain {what}")
        time.sleep(_INTERVAL_SECONDS)


async def async_until(condition: Callable[[], object], what: str = "") -> None:
    """As `until`, for coroutines."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE_SECONDS} s in vain {what}")
        await asyncio.sleep(_INTERVAL_SECONDS)
