"""What a client sends while its request waits for a GPU: kept for the application, and watched for its end.

Law: ASGI tells that a client is gone only to who reads, so that somebody always reads; how much is kept has a
bound, beyond which nothing is read before the application takes some. The application gets every message, in order.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from gpuarbiter._asgi.messages import Message, Receive

# What a message costs beside its body.
_MESSAGE_BYTES = 512


class Inbox:
    """Reads ahead for one request, while its context is entered."""

    def __init__(self, receive: Receive, limit_bytes: int) -> None:
        self._receive = receive
        self._limit_bytes = limit_bytes
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self._changed = asyncio.Condition()
        self._failure: BaseException | None = None
        self._answered = False
        self._reader: asyncio.Task[None] | None = None
        # The client went before it had its whole answer.
        self.gone = False
        self.on_gone: Callable[[], None] | None = None

    def answered(self) -> None:
        """The answer is complete: whoever goes now may go."""
        self._answered = True

    async def receive(self) -> Message:
        """The next message, as a server gives it."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._messages or self._failure is not None)
            if not self._messages:
                assert self._failure is not None
                raise self._failure
            message = self._messages[0]
            if not _is_end(message):  # which is told as often as it is asked for
                self._messages.popleft()
                self._bytes -= _size(message)
                self._changed.notify_all()
            return message

    async def __aenter__(self) -> Self:
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._reader is not None
        self._reader.cancel()
        await asyncio.wait([self._reader])

    async def _read(self) -> None:
        over = False
        while not over:
            try:
                message = await self._receive()
            except Exception as failure:  # noqa: BLE001 -- it is the application's, at its next receive
                await self._keep(None, failure)
                return
            over = _is_end(message)
            await self._keep(message)
        self.gone = not self._answered
        if self.gone and self.on_gone is not None:
            self.on_gone()

    async def _keep(self, message: Message | None, failure: Exception | None = None) -> None:
        async with self._changed:
            self._failure = failure
            if message is not None:
                self._messages.append(message)
                self._bytes += _size(message)
            self._changed.notify_all()
            if message is not None and not _is_end(message):
                await self._changed.wait_for(lambda: self._bytes < self._limit_bytes)


def _is_end(message: Message) -> bool:
    kind: str = message["type"]
    return kind.endswith(".disconnect")


def _size(message: Message) -> int:
    return _MESSAGE_BYTES + sum(len(message.get(part) or "") for part in ("body", "bytes", "text"))
