"""Waiting for what another process does: polled, and bounded."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

PATIENCE_SECONDS = 15.0
_INTERVAL_SECONDS = 0.01

Found = TypeVar("Found")


async def eventually(look: Callable[[], Awaitable[Found]], what: str) -> Found:
    """What `look` returns, once that is true; fails when it never is."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := await look()):
        assert time.monotonic() < deadline, f"waited {PATIENCE_SECONDS:g} s in vain for {what}; last: {found!r}"
        await asyncio.sleep(_INTERVAL_SECONDS)
    return found
