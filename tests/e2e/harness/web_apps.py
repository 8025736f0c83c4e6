"""Applications that take a lease for each request, one beside the other: plain ASGI, Starlette's and FastAPI's.

Each has below its own prefix: /health without a lease, /work that waits and holds until the file GATE is there,
/skip that does not wait, /stream that sends until its client goes, and a WebSocket /talk.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import fastapi
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from gpuarbiter import current_lease
from gpuarbiter.asgi import GpuLeaseMiddleware, GpuRoute

GATE = "WEB_APPS_GATE"
ROUTES = [
    GpuRoute("WORK", "/work", max_wait="20s", max_hold=0),
    GpuRoute("SKIP", "/skip", busy_policy="SKIP", max_wait=0),
    GpuRoute("STREAM", "/stream", max_wait="20s", max_hold=0),
    GpuRoute("TALK", "/talk", websocket=True, busy_policy="SKIP", max_wait=0, max_hold=0),
]


async def work() -> dict[str, str]:
    """Holds until the gate is open."""
    gate = Path(os.environ[GATE])
    while not gate.exists():  # noqa: ASYNC110, ASYNC240 -- another process makes it
        await asyncio.sleep(0.005)
    return {"gpu": current_lease().visible_devices}


async def pieces() -> AsyncIterator[bytes]:
    """Without an end."""
    while True:
        yield current_lease().visible_devices.encode()
        await asyncio.sleep(0.005)


# -- plain ASGI ------------------------------------------------------------------------------------


async def _plain(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": current_lease().visible_devices})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    path = scope["path"].removeprefix(scope["root_path"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if path == "/stream":
        async for piece in pieces():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    body = b"well" if path == "/health" else json.dumps(await work() if path == "/work" else {}).encode()
    await send({"type": "http.response.body", "body": body})


plain = GpuLeaseMiddleware(_plain, ROUTES)

# -- Starlette -------------------------------------------------------------------------------------


async def _health(_request: Request) -> JSONResponse:
    return JSONResponse("well")


async def _work(request: Request) -> JSONResponse:
    assert request.state.gpu_lease is current_lease()
    return JSONResponse(await work())


async def _skip(_request: Request) -> JSONResponse:
    return JSONResponse({})


async def _stream(_request: Request) -> StreamingResponse:
    return StreamingResponse(pieces())


async def _talk(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(current_lease().visible_devices)
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await websocket.receive_text()


starlette = Starlette(
    routes=[
        Route("/health", _health),
        Route("/work", _work),
        Route("/skip", _skip),
        Route("/stream", _stream),
        WebSocketRoute("/talk", _talk),
    ]
)
starlette.add_middleware(GpuLeaseMiddleware, routes=ROUTES)

# -- FastAPI ---------------------------------------------------------------------------------------

api = fastapi.FastAPI()
api.add_middleware(GpuLeaseMiddleware, routes=ROUTES)
api.get("/health")(lambda: "well")
api.get("/work")(work)
api.get("/skip")(lambda: current_lease().task_type)  # which FastAPI runs in a thread
api.get("/stream", response_model=None)(_stream)
api.websocket("/talk")(_talk)

_APPS: dict[str, Any] = {"/plain": plain, "/starlette": starlette, "/fastapi": api}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """All of them."""
    if scope["type"] == "lifespan":
        await starlette(scope, receive, send)
        return
    prefix = "/" + scope["path"].split("/")[1]
    await _APPS[prefix]({**scope, "root_path": prefix}, receive, send)
