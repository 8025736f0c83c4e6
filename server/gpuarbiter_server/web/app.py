"""The HTTP side: /healthz, /readyz, /metrics. What is not there answers 404."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

# The classic text format; the library's own constant claims a newer one.
_CLASSIC = "text/plain; version=0.0.4; charset=utf-8"


def create(registry: CollectorRegistry, ready: Callable[[], str | None]) -> Starlette:
    """The application; ready: None when requests are served, otherwise what is missing."""

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("OK")

    async def readyz(_request: Request) -> Response:
        missing = ready()
        return PlainTextResponse(missing or "OK", status_code=503 if missing else 200)

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(registry), headers={"content-type": _CLASSIC})

    application = Starlette(
        routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)],
    )
    application.router.redirect_slashes = False
    return application
