"""What the application sends, on its way to the client.

Law: the GPU is given back with the last piece of the answer, not before and not later; an application that streams to
a client who is gone is told so where it sends, as ASGI 2.4 has it, whatever its server does.
"""

from collections.abc import Awaitable, Callable

from gpuarbiter._asgi.inbox import Inbox
from gpuarbiter._asgi.messages import Message, Send

_FIRST_SERVER_ERROR = 500


class ClientGone(OSError):  # noqa: N818 -- as frameworks name it
    """The client is gone: nobody reads what is sent."""


class Outbox:
    """Sends for one request."""

    def __init__(self, send: Send, inbox: Inbox, on_sent: Callable[[], Awaitable[None]]) -> None:
        self._send = send
        self._inbox = inbox
        self._on_sent = on_sent
        self._trailers = False
        # The client has something of an answer, or a WebSocket.
        self.started = False
        self.failed = False

    async def send(self, message: Message) -> None:
        """Sends a message.

        Raises:
            ClientGone: it is a piece of a stream, and nobody is there.
        """
        kind: str = message["type"]
        if self._inbox.gone and (kind == "websocket.send" or message.get("more_body")):
            raise ClientGone("the client is gone")
        if kind.endswith(".response.start"):
            self._trailers = bool(message.get("trailers"))
            self.failed = message["status"] >= _FIRST_SERVER_ERROR
        self.started = self.started or kind.endswith((".start", ".accept"))
        last = self._is_last(kind, message)
        if last:
            self._inbox.answered()
        await self._send(message)
        # What became of a request that failed is told by the exception that follows its answer.
        if last and not self.failed:
            await self._on_sent()

    def _is_last(self, kind: str, message: Message) -> bool:
        if kind.endswith(".response.body"):
            return not message.get("more_body") and not self._trailers
        if kind == "http.response.trailers":
            return not message.get("more_trailers")
        return kind in {"http.response.pathsend", "websocket.close"}


def stems_from_client(error: BaseException | None) -> bool:
    """Whether an exception came of ClientGone: is one, was raised for one, or is a group of nothing else."""
    if isinstance(error, BaseExceptionGroup):
        return all(stems_from_client(each) for each in error.exceptions)
    while error is not None and not isinstance(error, ClientGone):
        error = error.__cause__ or error.__context__
    return error is not None
