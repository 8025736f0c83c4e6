"""The Acquire stream: effects of the core in, messages out, and the truth about what was written.

Law: whatever happens to the stream, the core is told in `finally`, synchronously, and whether the
Granted may have been written: only a grant that surely never left is taken back. A client that hangs up as
soon as it has its lease can be quicker than the news that the write is done.
"""

import asyncio
from collections import deque

from gpuarbiter_server.api.convert_out import Converter
from gpuarbiter_server.api.status import Context, abort
from gpuarbiter_server.core import effects as fx
from gpuarbiter_server.core.events import Call
from gpuarbiter_server.runtime.runtime import Runtime

TERMINAL = (fx.Declined, fx.Failed, fx.Ended)


class Outbox:
    """What is to be written next. A Queued that was not written yet gives way to a newer one."""

    def __init__(self) -> None:
        self._effects: deque[fx.Effect] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def put(self, effect: fx.Effect) -> None:
        """Adds an effect."""
        if self._effects and isinstance(self._effects[-1], fx.Queued):
            self._effects.pop()
        self._effects.append(effect)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> fx.Effect:
        """The next effect; waits for it."""
        while not self._effects:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._effects.popleft()


def is_last(effect: fx.Effect) -> bool:
    """Whether a stream ends after this effect."""
    return isinstance(effect, TERMINAL) or (isinstance(effect, fx.Granted) and effect.final)


async def carry(context: Context, runtime: Runtime, call: Call, outbox: Outbox, convert: Converter) -> None:
    """Writes what the core says until the stream is over."""
    delivered = False
    try:
        while True:
            effect = await outbox.next()
            if isinstance(effect, fx.Failed):
                await abort(context, effect.error)
            delivered = delivered or isinstance(effect, fx.Granted)
            await context.write(convert.acquire(effect))
            if is_last(effect):
                return
    finally:
        runtime.close(call, delivered=delivered)
