"""A lease for each request of an ASGI application, with any framework and any server that runs on asyncio.

    from fastapi import FastAPI
    from gpuarbiter.asgi import GpuLeaseMiddleware, GpuRoute

    app = FastAPI()
    app.add_middleware(GpuLeaseMiddleware, routes=[GpuRoute("ASR", "/transcribe", memory="6GiB", max_wait="3s")])

Law: requests that no route names are none of its business. One that gets no GPU is answered with 503 and
Retry-After, and the application never sees it.
"""

import asyncio
from collections.abc import Callable, Sequence

from gpuarbiter._aio.arbiter import AsyncArbiter
from gpuarbiter._asgi.messages import ASGIApp, Message, Receive, Scope, Send
from gpuarbiter._asgi.routes import GpuRoute
from gpuarbiter._asgi.serving import Serving
from gpuarbiter._defaults import default_async_arbiter
from gpuarbiter._units import Size, parse_bytes

__all__ = ["GpuLeaseMiddleware", "GpuRoute"]

_SHUT_DOWN = frozenset({"lifespan.shutdown.complete", "lifespan.shutdown.failed"})


class GpuLeaseMiddleware:
    """Runs requests under leases: `current_lease()` in the application, `request.state.gpu_lease` in Starlette's.

    Args:
        app: the application.
        routes: which requests, under what leases; the first that matches decides.
        arbiter: an AsyncArbiter of yours, which stays yours to close; or what makes one at the first request, which is
            closed after the application's own shutdown. Otherwise that of the process.
        buffer: how much of a request's body is kept while it waits. Of longer ones the rest is read only once there is
            a GPU, and a client that goes before is not noticed until then.
        detail: whether those who are refused are told what is in the way, in the arbiter's words.

    Raises:
        ValueError, TypeError: it cannot be meant so.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: Sequence[GpuRoute],
        *,
        arbiter: AsyncArbiter | Callable[[], AsyncArbiter] = default_async_arbiter,
        buffer: Size = "16MiB",
        detail: bool = True,
    ) -> None:
        routes = tuple(routes)
        for each in routes:
            if not isinstance(each, GpuRoute):
                raise TypeError(f"routes are GpuRoute objects, not {each!r}")
        if not routes:
            raise ValueError("without routes no request would run under a lease")
        if not callable(arbiter) and not isinstance(arbiter, AsyncArbiter):
            raise TypeError(f"arbiter is an AsyncArbiter, or makes one, not {type(arbiter).__name__}")
        self._app = app
        self._routes = routes
        self._given = arbiter
        self._buffer_bytes = parse_bytes(buffer)
        self._detailed = detail
        self._made: tuple[asyncio.AbstractEventLoop, AsyncArbiter] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one scope."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        route = next((each for each in self._routes if each.matches(scope)), None)
        if route is None:
            await self._app(scope, receive, send)
            return
        serving = Serving(self._app, route, scope, send, detailed=self._detailed)
        await serving.run(self._arbiter(), receive, self._buffer_bytes)

    def _arbiter(self) -> AsyncArbiter:
        if isinstance(self._given, AsyncArbiter):
            return self._given
        loop = asyncio.get_running_loop()
        if self._made is None or self._made[0] is not loop or self._made[1].closed:
            self._made = loop, self._given()
        return self._made[1]

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def closing(message: Message) -> None:
            if message["type"] in _SHUT_DOWN and self._made is not None:
                await self._made[1].close()
            await send(message)

        await self._app(scope, receive, closing)
