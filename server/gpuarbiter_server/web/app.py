"""The HTTP side: /healthz, /readyz, /metrics, the console, and what the analysis answers. The rest answers 404."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from gpuarbiter_server.telemetry import exposition

# Of the analysis.
ANALYSIS_PATHS = ("/", "/health", "/analyze", "/results", "/results/low", "/results/stats", "/config", "/config/update")
_DOCS_PATHS = ("/docs", "/openapi.json")
_DOCS_ASSETS = "/docs-assets"


class Page(Protocol):
    """The metrics in the one or the other format, in parts that are made as they are asked for."""

    def __call__(self, *, openmetrics: bool) -> Iterator[bytes]:
        """The parts."""


def create(
    page: Page | None,
    ready: Callable[[], str | None],
    analysis: ASGIApp | None = None,
    console: Iterable[BaseRoute] = (),
) -> Starlette:
    """The application.

    page: the metrics, as OpenMetrics or in the classic format; None: there is no /metrics. ready: None when
    requests are served, otherwise what is missing. analysis: what answers its routes; None: they are not there.
    console: its routes.
    """

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("OK")

    async def readyz(_request: Request) -> Response:
        missing = ready()
        return PlainTextResponse(missing or "OK", status_code=503 if missing else 200)

    # One page at a time: a thousand that take turns, part by part, would hold the loop for a thousand parts.
    turn = asyncio.Lock()

    async def metrics(request: Request) -> Response:
        kind = exposition.content_type(request.headers.get("accept", ""))
        assert page is not None
        parts = []
        async with turn:
            for part in page(openmetrics=kind == exposition.OPENMETRICS):
                parts.append(part)
                # Others than scrapers have their turn.
                await asyncio.sleep(0)
        return Response(b"".join(parts), headers={"content-type": kind})

    routes: list[BaseRoute] = [Route("/healthz", healthz), Route("/readyz", readyz)]
    if page is not None:
        routes.append(Route("/metrics", metrics))
    if analysis is not None:
        routes += [Route(path, analysis) for path in (*ANALYSIS_PATHS, *_DOCS_PATHS)]
        routes.append(Route(_DOCS_ASSETS + "/{name}", analysis))
    application = Starlette(routes=[*routes, *console])
    application.router.redirect_slashes = False
    return application
