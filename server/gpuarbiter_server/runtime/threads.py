"""Calls that may never return, such as those of a sick driver: made where they hold nobody up."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def within(seconds: float, function: Callable[[], T]) -> T:
    """What a function returns or raises, called on a thread of its own; TimeoutError when that takes too long.

    The thread is left behind then, and unlike one of the loop's it keeps no process from ending.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # type: ignore[arg-type]

    def call() -> None:
        result, error = None, None
        try:
            result = function()
        except Exception as caught:  # noqa: BLE001 -- it is raised again, where it is waited for
            error = caught
        # Nobody waits any more when the loop is closed.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=call, name=getattr(function, "__qualname__", "call"), daemon=True).start()
    async with asyncio.timeout(seconds):
        return await outcome
