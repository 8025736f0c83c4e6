"""The routes of the analysis, with their documentation at /docs, which needs no internet.

Law: imported when somebody first asks for one of its routes, see Late. Whoever reaches this port may look; who changes
something needs more, see `guard`.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.routing import BaseRoute, Match, Route

from gpuarbiter_server.analysis.opinions import Opinions
from gpuarbiter_server.analysis.service import Analysis, AnalysisError, Run
from gpuarbiter_server.web import analysis_shapes as shapes
from gpuarbiter_server.web import analysis_updates as updates
from gpuarbiter_server.web.guard import Guard, refuse_strangers

# Who asks for a run is answered within this: gpu-arbiter waits 10 s for an answer, a connection is given 30 s.
_PATIENCE = 8.0


def make(
    analysis: Analysis,
    opinions: Opinions,
    *,
    version: str,
    config: Callable[[], Mapping[str, Any]],
    update: updates.Update,
    guard: Guard,
    prometheus_url: str,
    metrics: bool,
    control: bool,
) -> FastAPI:
    """The application.

    config: the settings of the analysis as a file would say them, without secrets. update: changes them, for whom the
    guard lets pass. metrics, control: whether there are metrics, and a control webhook.
    """
    api: FastAPI = FastAPIOffline(
        docs_url="/docs",
        redoc_url=None,
        static_url="/docs-assets",
        openapi_url="/openapi.json",
        title="GpuArbiter utilization analysis",
        version=version,
    )

    _about(api, analysis, opinions, prometheus_url=prometheus_url, metrics=metrics, control=control)
    _runs(api, analysis, opinions)
    _results(api, analysis)
    updates.add(api, config, update, guard)

    @api.exception_handler(405)
    async def not_allowed(request: Request, _error: Exception) -> Response:
        """One path can have several routes, and FastAPI names the methods of one of them."""
        return _not_allowed(request, api.routes)

    @api.get("/config")
    async def config_in_force() -> dict[str, Any]:
        """The settings of the analysis."""
        return dict(config())

    return api


def _not_allowed(request: Request, routes: Iterable[BaseRoute]) -> Response:
    here = (each for each in routes if isinstance(each, Route) and each.matches(request.scope)[0] is not Match.NONE)
    allowed = sorted(method for route in here for method in route.methods or ())
    return JSONResponse({"detail": "Method Not Allowed"}, 405, {"allow": ", ".join(allowed)})


def _about(
    api: FastAPI, analysis: Analysis, opinions: Opinions, *, prometheus_url: str, metrics: bool, control: bool
) -> None:
    @api.get("/")
    async def root() -> shapes.Root:
        """What this is."""
        settings = analysis.settings
        return shapes.Root(
            service="gpu-arbiter",
            version=api.version,
            features=shapes.Features(ai_analysis=opinions.enabled, prometheus_metrics=metrics, control_api=control),
            config=shapes.Summary(
                prometheus_url=prometheus_url, threshold=settings.thresholds.low, interval=settings.interval
            ),
        )

    @api.get("/health")
    async def health() -> shapes.Health:
        """Where the figures come from, when they were taken, and whether they are stale."""
        return shapes.health(analysis, opinions, prometheus=bool(prometheus_url))


def _runs(api: FastAPI, analysis: Analysis, opinions: Opinions) -> None:
    refusals: dict[int | str, dict[str, Any]] = {
        403: {"description": "Asked by a name that is none of this machine, or from a page of elsewhere."},
        503: {"model": shapes.Asked},
    }

    @api.get("/analyze", responses=refusals)
    @api.post("/analyze", operation_id="analyze_post", responses=refusals)
    async def analyze(request: Request, response: Response, *, use_ai: bool | None = None) -> shapes.Asked:
        """Looks now. use_ai: true: have the model judge anew, within its limits; false: the built-in rules alone."""
        # A run can cost what a model costs, and count for an action: no page that somebody visits may start one.
        refuse_strangers(request, "runs are")
        try:
            run = await asyncio.wait_for(analysis.run(advised=use_ai), _PATIENCE)
        except TimeoutError:
            return shapes.Asked(status="running", message=f"still at it after {_PATIENCE:g} s; see /results later")
        except AnalysisError as error:
            response.status_code = 503
            return shapes.Asked(status="failed", message=str(error))
        note = _judged(run, opinions) if use_ai else ""
        found = len(run.results)
        gpus = "1 GPU" if found == 1 else f"{found} GPUs"
        return shapes.Asked(status="ok", message=f"{gpus} in {run.seconds:.2f} s{note}")


def _judged(run: Run, opinions: Opinions) -> str:
    """What came of asking the model."""
    if not opinions.enabled:
        return "; no model is configured: judged by the built-in rules"
    judged = sum(each.opinion is not None for each in run.results)
    return f"; {judged} judged by the model" + (f" ({opinions.trouble})" if opinions.trouble else "")


def _results(api: FastAPI, analysis: Analysis) -> None:
    @api.get("/results", responses={404: {"description": "No run is that old."}})
    async def results(runs_ago: Annotated[int, Query(ge=0, le=1000)] = 0) -> list[shapes.GpuResult]:
        """Every GPU of the last run, or of an earlier one that is still kept."""
        if runs_ago and runs_ago >= len(analysis.runs):
            raise HTTPException(404, f"{len(analysis.runs)} runs are kept")
        return shapes.results(analysis.runs[runs_ago] if analysis.runs else None)

    @api.get("/results/low")
    async def low() -> shapes.LowResults:
        """The GPUs that score below the low threshold."""
        return shapes.low_results(analysis)

    @api.get("/results/stats")
    async def stats() -> shapes.StatisticsShape:
        """The figures of the last run as a whole, by status and by namespace."""
        return shapes.stats(analysis)
