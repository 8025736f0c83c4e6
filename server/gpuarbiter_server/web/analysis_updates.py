"""POST /config/update: changes the settings of the analysis while it runs, as a whole or not at all."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Security
from fastapi.security import HTTPBearer

from gpuarbiter_server.config import ConfigError, patch_schema
from gpuarbiter_server.config.analysis import AnalysisSection
from gpuarbiter_server.web.analysis_shapes import Updated
from gpuarbiter_server.web.guard import REFUSALS, Guard

# Takes a change of the section `analysis` as a file would say it; returns the changed keys that need a restart.
# Raises ConfigError where what comes of it is not valid.
Update = Callable[[Mapping[str, Any]], Awaitable[list[str]]]

_BODY = {
    "requestBody": {
        "required": True,
        "description": "What changes in the section `analysis`, as a file says it; null gives a key its default back.",
        "content": {
            "application/json": {"schema": patch_schema(AnalysisSection), "example": {"thresholds": {"low": 30}}}
        },
    }
}
_REFUSALS = {
    **REFUSALS,
    422: {"description": "What would come of it is not valid: every problem, one a line. Nothing has changed."},
}
# For /openapi.json and the Authorize button of /docs alone: the guard is what checks it.
_ADMIN_TOKEN = HTTPBearer(scheme_name="adminToken", description="What `gpu-arbiterd token` prints.", auto_error=False)


def add(api: FastAPI, config: Callable[[], Mapping[str, Any]], update: Update, guard: Guard) -> None:
    """Adds the route."""

    @api.post("/config/update", responses=_REFUSALS, openapi_extra=_BODY, dependencies=[Security(_ADMIN_TOKEN)])
    async def update_config(request: Request) -> Updated:
        """Changes the settings of the analysis: checked as a whole, in force at once but for what needs a restart."""
        patch = await guard.body(request)
        try:
            restart_needed = await update(patch)
        except ConfigError as error:
            raise HTTPException(422, str(error)) from None
        return Updated(status="ok", config=dict(config()), restart_needed=restart_needed)
