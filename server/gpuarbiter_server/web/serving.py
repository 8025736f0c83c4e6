"""HTTP on a socket of ours: taken early, so that a second arbiter is refused, and served by uvicorn."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator

import uvicorn
from starlette.applications import Starlette

# Seconds that answers in progress get at the end.
_LAST_ANSWERS = 1
_BACKLOG = 128


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
        application, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=_LAST_ANSWERS
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
