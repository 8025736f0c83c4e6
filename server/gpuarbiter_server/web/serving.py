"""HTTP on a socket of ours: taken early, so that a second arbiter is refused, and served by uvicorn.

Law: who connects here takes no files from those who want leases: connections have a number and a time.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import h11
import uvicorn
from starlette.applications import Starlette
from starlette.types import Scope
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.h11_impl import H11Protocol

# Seconds that answers in progress get at the end.
_LAST_ANSWERS = 1
_BACKLOG = 128
# A process has 1,024 open files where nobody says otherwise, and leases need theirs.
_MOST_CONNECTIONS = 128
# From the connection, or the answer before, a request is made and its answer taken within so many seconds.
_PATIENCE = 30.0
_GO_ON = "gpuarbiter.go_on"


def go_on(scope: Scope) -> None:
    """An answer without end is still being taken: it has its time anew."""
    scope.get("extensions", {}).get(_GO_ON, _nothing)()


def _nothing() -> None:
    """Where nobody is impatient."""


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens: nobody else can from now on, and whoever connects is answered once we serve.

    Raises:
        OSError: somebody listens there already, or the address is not ours.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        # A restart must not wait for the last connections of its predecessor to be forgotten.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def serve(listener: socket.socket, application: Starlette) -> Callable[[], Awaitable[None]]:
    """Serves HTTP; returns what ends it."""
    config = uvicorn.Config(
        application,
        http=_Connection,
        ws="none",
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=_LAST_ANSWERS,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))

    async def end() -> None:
        server.should_exit = True
        await task

    return end


class _Server(uvicorn.Server):
    """A uvicorn that leaves the signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


class _Connection(H11Protocol):
    """A connection that is closed when it takes too long, when it breaks the protocol, and for one that is newer.

    Where there are too many, it is the newest that is served: a probe or a scraper comes and goes, and who keeps the
    others out stays. Those that are not being answered go first, the oldest of them before the others.
    """

    _timer: asyncio.TimerHandle | None = None
    _since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody connects."""
        super().connection_made(transport)
        self.app = self._with_patience(self.app)
        self._begin()
        if len(self.connections) > _MOST_CONNECTIONS:
            others = [each for each in self.connections if isinstance(each, _Connection) and each is not self]
            min(others, key=_Connection._worth)._give_up()  # noqa: SLF001 -- others of its kind

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads on. To a broken request whose answer has begun, uvicorn has no answer."""
        try:
            super().data_received(data)
        except h11.LocalProtocolError:
            self.transport.abort()

    def on_response_complete(self) -> None:
        """An answer has been handed over, and the next request may come."""
        self._begin()
        super().on_response_complete()

    def _with_patience(self, application: ASGI3Application) -> ASGI3Application:
        """The same, and it can begin the time of its connection anew: see `go_on`."""

        async def served(scope: Any, receive: Any, send: Any) -> None:
            await application(scope | {"extensions": {_GO_ON: self._begin}}, receive, send)

        return served

    def _worth(self) -> tuple[bool, float]:
        return self.cycle is not None and not self.cycle.response_complete, self._since

    def _begin(self) -> None:
        self._stop_timer()
        self._since = self.loop.time()
        self._timer = self.loop.call_later(_PATIENCE, self._give_up)

    def _give_up(self) -> None:
        # Not only once the loop comes to tell that it is lost: many can connect before that.
        self.connections.discard(self)
        self.transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
