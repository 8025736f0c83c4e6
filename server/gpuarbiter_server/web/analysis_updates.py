"""POST /config/update: changes the settings of the analysis while it runs, as a whole or not at all.

Law: only JSON is taken, by a name of this machine, and from no page of elsewhere. A browser lets any page send a form
to 127.0.0.1, and a name that somebody else owns may lead here (DNS rebinding); neither may change anything.
"""

import ipaddress
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, HTTPException, Request

from gpuarbiter_server.config import ConfigError
from gpuarbiter_server.web.analysis_shapes import Updated

_MOST_BYTES = 64 * 1024
# Takes a change of the section `analysis` as a file would say it; returns the changed keys that need a restart.
# Raises ConfigError where what comes of it is not valid.
Update = Callable[[Mapping[str, Any]], Awaitable[list[str]]]

_BODY = {
    "requestBody": {
        "required": True,
        "description": "What changes in the section `analysis`, as a file says it; null gives a key its default back.",
        "content": {"application/json": {"schema": {"type": "object"}, "example": {"thresholds": {"low": 30}}}},
    }
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    403: {"description": "Asked by a name that is none of this machine, or from a page of elsewhere."},
    413: {"description": "The body is too large."},
    415: {"description": "The body is no application/json."},
    422: {"description": "What would come of it is not valid: every problem, one a line. Nothing has changed."},
}


def add(api: FastAPI, config: Callable[[], Mapping[str, Any]], update: Update) -> None:
    """Adds the route."""

    @api.post("/config/update", responses=_REFUSALS, openapi_extra=_BODY)
    async def update_config(request: Request) -> Updated:
        """Changes the settings of the analysis: checked as a whole, in force at once but for what needs a restart."""
        _refuse_strangers(request)
        patch = await _patch(request)
        try:
            restart_needed = await update(patch)
        except ConfigError as error:
            raise HTTPException(422, str(error)) from None
        return Updated(status="ok", config=dict(config()), restart_needed=restart_needed)


def _refuse_strangers(request: Request) -> None:
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if not _is_local(host):
        raise HTTPException(403, "changes are taken by localhost or a loopback address only")
    if origin is not None and urlsplit(origin).netloc != host:
        raise HTTPException(403, "changes are not taken from pages of elsewhere")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "write the change as application/json")


def _is_local(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


async def _patch(request: Request) -> Mapping[str, Any]:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BYTES:
            raise HTTPException(413, f"a change has {_MOST_BYTES} bytes at most")
    try:
        patch = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(422, "the body is no JSON") from None
    if not isinstance(patch, dict):
        raise HTTPException(422, "write a mapping of keys of the section analysis")
    return patch
