"""/console: the page with all that it needs, and what it is fed with.

Law: nothing of elsewhere is loaded, run or connected to, whatever a name that it shows says; a page of elsewhere sees
nothing of it. Files are in memory from the first request on, so that the disk has no say.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from gpuarbiter_server.web import guard, serving
from gpuarbiter_server.web.console.actions import Actions
from gpuarbiter_server.web.console.feed import CrowdedError, Feed
from gpuarbiter_server.web.guard import Guard

PATH = "/console"
_PAGE = "index.html"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_AGAIN_SECONDS = 5


class _File(NamedTuple):
    body: bytes
    kind: str
    tag: str


@cache
def _files() -> Mapping[str, _File]:
    """All there are, by name."""
    folder = resources.files(__package__) / "static"
    return {each.name: _read(each) for each in folder.iterdir()}


def _read(path: Traversable) -> _File:
    body = path.read_bytes()
    return _File(body, _TYPES[path.name.rpartition(".")[2]], f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def routes(feed: Feed, actions: Actions, guarded: Guard) -> list[BaseRoute]:
    """What answers below /console."""
    return [
        *actions.routes(PATH + "/api", guarded, {**_HEADERS, "Cache-Control": "no-store"}),
        Route(PATH, _page),
        Route(PATH + "/", _without_slash),
        Route(PATH + "/feed", _streaming(feed)),
        Route(PATH + "/{name}", _asset),
    ]


async def _page(request: Request) -> Response:
    return _file(request, _PAGE)


async def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    return Response(status_code=404, headers=_HEADERS) if name == _PAGE else _file(request, name)


async def _without_slash(_request: Request) -> Response:
    # What the page names is relative to it, so that it works behind a proxy that adds a prefix.
    return RedirectResponse("../console", 308, _HEADERS)


def _file(request: Request, name: str) -> Response:
    file = _files().get(name)
    if file is None:
        return Response(status_code=404, headers=_HEADERS)
    headers = {**_HEADERS, "ETag": file.tag, "Cache-Control": "no-cache"}
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.body, headers={**headers, "Content-Type": file.kind})


def _streaming(feed: Feed) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        guard.refuse_strangers(request, "the feed of the console is")
        if request.method == "HEAD":
            # Whether there would be a stream: who opens one is not told why there is none.
            return Response(status_code=503 if feed.crowded else 200, headers=_STREAM_HEADERS)
        return _Stream(feed)

    return answer


_STREAM_HEADERS = {**_HEADERS, "Content-Type": "text/event-stream", "Cache-Control": "no-store"}


class _Stream(Response):
    """Server-sent events, until one of the two has enough."""

    def __init__(self, feed: Feed) -> None:
        super().__init__(headers=_STREAM_HEADERS)
        self._feed = feed
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends."""
        try:
            with self._feed.place():
                await self._send(scope, receive, send)
        except CrowdedError:
            headers = {**_HEADERS, "Retry-After": str(_AGAIN_SECONDS)}
            await JSONResponse({"error": "as many watch as may"}, 503, headers)(scope, receive, send)

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send_on(scope, send))
        leaving = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait([sending, leaving], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send_on(self, scope: Scope, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for text in self._feed.news():
            await send({"type": "http.response.body", "body": text, "more_body": True})
            # Whoever takes nothing is not waited for: `send` returns once what was before is taken.
            serving.go_on(scope)
        await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
