"""Health and reflection, the services of the gRPC project, behind our own decoding: they see whole messages only."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from google.protobuf.message import Message

from gpuarbiter_server.api.status import Context, abort
from gpuarbiter_server.api.wire import Undecodable, decoded
from gpuarbiter_server.core.errors import ArbiterError

Decoded = Message | Undecodable
Requests = AsyncIterator[Decoded]


async def _whole(message: Decoded, context: Context) -> Message:
    """The message; a call with what is none ends here."""
    try:
        return decoded(message)
    except ArbiterError as error:
        await abort(context, error)


def one(handler: Callable[[Message, Context], Awaitable[Any]]) -> Callable[[Decoded, Context], Awaitable[Any]]:
    """A handler of one request."""

    async def handle(message: Decoded, context: Context) -> Any:
        return await handler(await _whole(message, context), context)

    return handle


def many(handler: Callable[..., AsyncIterator[Any]]) -> Callable[[Requests, Context], AsyncIterator[Any]]:
    """A handler of a stream of requests that answers with a stream."""

    async def handle(messages: Requests, context: Context) -> AsyncIterator[Any]:
        async def whole() -> AsyncIterator[Message]:
            async for message in messages:
                yield await _whole(message, context)

        async for answer in handler(whole(), context):
            yield answer

    return handle
