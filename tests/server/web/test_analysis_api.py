"""What the analysis answers over HTTP, over a real socket: the routes, their shapes, their documentation."""

import asyncio
import gc
import http.client
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest

from gpuarbiter_server.analysis.model import GpuWindow, Holder, Judgement, Result, Sample, Verdict
from gpuarbiter_server.analysis.opinions import Opinions
from gpuarbiter_server.analysis.service import Analysis, Settings
from gpuarbiter_server.analysis.sources import SourceError
from gpuarbiter_server.config import ConfigError, Problem
from gpuarbiter_server.web import app, serving
from gpuarbiter_server.web.guard import Guard
from gpuarbiter_server.web.late import Late
from server.analysis.windows import GIB, of, window
from support.logs import no_errors_logged

NOON = 1_800_000_000.0
ROUTES = {"/", "/health", "/analyze", "/results", "/results/low", "/results/stats", "/config", "/config/update"}
JSON = "application/json"
TOKEN = "token-of-the-admin"
BEARER = f"Bearer {TOKEN}"


class Machine:
    """A source that tests put their GPUs into."""

    name = "own samples"

    def __init__(self, gpus: list[GpuWindow]) -> None:
        self.gpus = gpus
        self.fault = ""
        self.hold = asyncio.Event()
        self.hold.set()

    async def windows(self) -> list[GpuWindow]:
        await self.hold.wait()
        if self.fault:
            raise SourceError(self.fault)
        return self.gpus

    async def close(self) -> None:
        pass


class Model:
    """Thinks one thing of every GPU where it is asked."""

    def __init__(self) -> None:
        self.enabled = False
        self.trouble = ""
        self.asked_anew: list[bool] = []
        self.opinion = Judgement(Verdict.SUSPICIOUS, 0.83, "It says so.", "Ask it.", 12.345)

    async def advise(self, results: tuple[Result, ...], *, fresh: bool, seconds: float) -> tuple[Result, ...]:
        assert seconds > 0
        if not self.enabled:
            return results
        self.asked_anew.append(fresh)
        return tuple(replace(each, opinion=self.opinion) for each in results)


class Site:
    def __init__(self, gpus: list[GpuWindow]) -> None:
        self.now = NOON
        self.updates: list[Mapping[str, Any]] = []
        self.opinions = Model()
        self.source = Machine(gpus)
        self.analysis = Analysis(
            self.source,
            Settings(),
            history=2,
            first=1e9,
            clock=lambda: 0.0,
            wall=lambda: self.now,
            advise=self.opinions.advise,
        )
        self.listener = serving.bind("127.0.0.1", 0)
        self.port: int = self.listener.getsockname()[1]

    async def ask(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON, or text."""
        return await asyncio.to_thread(self._ask, path, method, body, headers)

    async def update(
        self, body: Any, content_type: str = JSON, authorization: str = BEARER, **headers: str
    ) -> tuple[int, Any]:
        said = {"content-type": content_type, "authorization": authorization, **headers}
        return await self.ask("/config/update", "POST", body, **said)

    async def take(self, patch: Mapping[str, Any]) -> list[str]:
        """Takes every change but one."""
        if "bad" in patch:
            raise ConfigError([Problem("analysis.bad", None, "the patch", "nothing", wrong="unknown key")])
        self.updates.append(patch)
        return ["analysis.step"] if "step" in patch else []

    async def get(self, path: str) -> Any:
        status, body = await self.ask(path)
        assert status == 200, body
        return body

    def _ask(self, path: str, method: str, body: Any, headers: dict[str, str]) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
            is_json = answer.getheader("content-type", "").startswith("application/json")
            return answer.status, json.loads(text) if is_json else text
        finally:
            connection.close()


@asynccontextmanager
async def served(*gpus: GpuWindow) -> AsyncIterator[Site]:
    from gpuarbiter_server.web import analysis_api

    site = Site(list(gpus))
    late = Late(
        lambda: analysis_api.make(
            site.analysis,
            cast("Opinions", site.opinions),
            version="1.2.3",
            config=lambda: {"interval": "300s"},
            update=site.take,
            guard=Guard(TOKEN),
            prometheus_url="",
            metrics=True,
            control=True,
        )
    )
    end = serving.serve(site.listener, app.create(None, lambda: None, late))
    with no_errors_logged():
        try:
            yield site
        finally:
            await end()
            await site.analysis.close()


async def test_it_says_what_it_is_and_what_it_goes_by():
    async with served() as site:
        assert await site.get("/") == {
            "service": "gpu-arbiter",
            "version": "1.2.3",
            "features": {"ai_analysis": False, "prometheus_metrics": True, "control_api": True},
            "config": {"prometheus_url": "", "threshold": 20, "interval": 300},
        }
        assert await site.get("/config") == {"interval": "300s"}


async def test_results_have_figures_in_the_units_of_their_names():
    holder = Holder("team-a", "trainer-0", "lease-1", 3600.0)
    busy = of(*[Sample(0.9, 0.5, 40 * GIB, 300.0, 1.98e9)] * 20, holders=(holder,))
    unknown = window([0.0] * 20, memory=0.0, holders=(), power_limit_watts=None)
    async with served(busy, unknown) as site:
        assert await site.get("/results") == []
        assert await site.get("/analyze") == {"status": "ok", "message": "2 GPUs in 0.00 s"}
        first, second = await site.get("/results")
        assert first == {
            "gpu_id": "gpu:0",
            "pod": "trainer-0",
            "namespace": "team-a",
            "client_id": "",
            "hostname": "node-1",
            "model_name": "Test GPU",
            "gpu_util": 90.0,
            "mem_copy": 50.0,
            "mem_used_mb": 40960.0,
            "power_usage": 300.0,
            "sm_clock": 1980.0,
            # 50 × 0.9 + 20 × 0.5 + 20 × 40/80 + 10 × 300/400
            "score": 72.5,
            "status": "high",
            "timestamp": "2027-01-15T08:00:00Z",
            "ai_analysis": {
                "source": "rules",
                "status": "active",
                "confidence": 0.95,
                "reason": "It works steadily: 90% on average, 0% deviation.",
                "recommendation": "Nothing to do.",
                "ai_adjusted_score": 72.5,
            },
        }
        assert (second["namespace"], second["pod"], second["status"]) == ("", "", "idle")
        assert "Not known: power" in second["ai_analysis"]["reason"]
        assert await site.get("/results/low") == {"count": 1, "threshold": 20, "gpus": [second]}
        assert await site.get("/results/stats") == {
            "total_gpus": 2,
            "avg_score": 36.25,
            "min_score": 0,
            "max_score": 72.5,
            "low_utilization_count": 1,
            "idle_count": 1,
            "by_status": {"idle": 1, "low": 0, "normal": 0, "high": 1},
            "by_namespace": {
                "": {"count": 1, "avg_score": 0, "low_util_count": 1},
                "team-a": {"count": 1, "avg_score": 72.5, "low_util_count": 0},
            },
        }


async def test_before_the_first_run_there_is_nothing_and_no_error():
    async with served() as site:
        assert await site.get("/results/low") == {"count": 0, "threshold": 20, "gpus": []}
        stats = await site.get("/results/stats")
        assert (stats["total_gpus"], stats["avg_score"], stats["by_namespace"]) == (0, None, {})
        health = await site.get("/health")
        assert (health["status"], health["last_analysis"], health["stale"]) == ("starting", None, False)


async def test_earlier_runs_can_be_had_as_long_as_they_are_kept():
    async with served() as site:
        for number in range(3):
            site.source.gpus = [window([number / 4])]
            await site.ask("/analyze", "POST")
        assert [(await site.get(f"/results?runs_ago={ago}"))[0]["gpu_util"] for ago in (0, 1)] == [50, 25]
        assert await site.ask("/results?runs_ago=2") == (404, {"detail": "2 runs are kept"})
        assert (await site.ask("/results?runs_ago=x"))[0] == 422


async def test_a_failed_run_is_told_and_leaves_the_last_results_stale():
    async with served(window([0.9])) as site:
        await site.get("/analyze")
        site.source.fault = "it is gone"
        status, answer = await site.ask("/analyze?use_ai=true")
        assert (status, answer["status"]) == (503, "failed")
        assert "it is gone; the last result is kept" in answer["message"]
        assert await site.get("/health") == {
            "status": "stale",
            "source": "own samples",
            "prometheus_connected": False,
            "last_analysis": "2027-01-15T08:00:00Z",
            "stale": True,
            "error": "it is gone",
            "analysis_timeout": 60,
            "ai_enabled": False,
            "ai_error": "",
            "interval": 300,
        }
        assert len(await site.get("/results")) == 1
        site.source.fault = ""
        answer = await site.get("/analyze?use_ai=true")
        assert answer["message"].endswith("no model is configured: judged by the built-in rules")
        assert (await site.get("/health"))["status"] == "healthy"
        site.now += 601
        assert (await site.get("/health"))["status"] == "stale"


async def test_a_model_that_is_sure_is_shown_in_place_of_the_rules_and_the_score_stays():
    async with served(window([0.0] * 20), window([0.9] * 20)) as site:
        await site.get("/analyze?use_ai=true")
        by_rules = await site.get("/results")
        site.opinions.enabled = True
        assert (await site.get("/"))["features"]["ai_analysis"] is True
        health = await site.get("/health")
        assert (health["ai_enabled"], health["ai_error"]) == (True, "")
        answer = await site.get("/analyze?use_ai=true")
        assert answer["message"] == "2 GPUs in 0.00 s; 2 judged by the model"
        by_model = await site.get("/results")
        assert [each.pop("ai_analysis") for each in by_model] == 2 * [
            {
                "source": "model",
                "status": "suspicious",
                "confidence": 0.83,
                "reason": "It says so.",
                "recommendation": "Ask it.",
                "ai_adjusted_score": 12.35,
            }
        ]
        assert {each.pop("ai_analysis")["source"] for each in by_rules} == {"rules"}
        assert by_model == by_rules
        site.opinions.trouble = "HTTP 500"
        assert (await site.get("/analyze?use_ai=true"))["message"].endswith("2 judged by the model (HTTP 500)")
        assert (await site.get("/health"))["ai_error"] == "HTTP 500"
        assert (await site.get("/analyze"))["message"] == "2 GPUs in 0.00 s"
        assert {each["ai_analysis"]["source"] for each in await site.get("/results")} == {"model"}
        await site.get("/analyze?use_ai=false")
        assert {each["ai_analysis"]["source"] for each in await site.get("/results")} == {"rules"}
        # Asked for, asked for, as it is configured; and not at all.
        assert site.opinions.asked_anew == [True, True, False]


async def test_who_asks_for_a_long_run_is_not_kept(monkeypatch: pytest.MonkeyPatch):
    from gpuarbiter_server.web import analysis_api

    monkeypatch.setattr(analysis_api, "_PATIENCE", 0.01)
    async with served(window([0.9])) as site:
        site.source.hold.clear()
        assert (await site.get("/analyze"))["status"] == "running"
        site.source.hold.set()
        await site.analysis.run()
        assert len(await site.get("/results")) == 1


async def test_its_documentation_needs_no_internet_and_has_every_route():
    async with served() as site:
        page = await site.get("/docs")
        assets = {part.split('"')[0] for part in page.split('"/')[1:]}
        assert {"docs-assets/swagger-ui.css", "docs-assets/swagger-ui-bundle.js"} <= assets
        for asset in assets - {"openapi.json"}:
            assert (await site.ask(f"/{asset}"))[0] == 200
        assert "https://" not in page
        described = await site.get("/openapi.json")
        assert set(described["paths"]) == ROUTES
        assert (await site.ask("/docs-assets/nothing.js"))[0] == 404


@pytest.mark.parametrize("path", ["/redoc", "/results/", "/results/nothing", "/docs-assets", "/metrics", "/nonsense"])
async def test_what_is_not_there_is_not_found(path: str):
    async with served() as site:
        assert (await site.ask(path))[0] == 404


async def test_nothing_but_a_run_can_be_asked_for():
    async with served() as site:
        for path in ROUTES - {"/analyze", "/config/update"}:
            for method in ("POST", "PUT", "DELETE"):
                assert (await site.ask(path, method))[0] == 405


async def test_what_a_route_takes_is_told_to_who_asks_in_another_way():
    async with served() as site:

        def allowed(path: str) -> str | None:
            connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
            connection.request("DELETE", path)
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read())) == (405, {"detail": "Method Not Allowed"})
            connection.close()
            return answer.getheader("allow")

        for path, methods in {"/analyze": "GET, POST", "/results": "GET", "/config/update": "POST"}.items():
            assert await asyncio.to_thread(allowed, path) == methods


async def test_a_change_is_handed_on_and_what_needs_a_restart_is_told():
    async with served() as site:
        assert await site.update('{"interval": "60s", "step": "10s"}', f"{JSON}; charset=utf-8") == (
            200,
            {"status": "ok", "config": {"interval": "300s"}, "restart_needed": ["analysis.step"]},
        )
        status, answer = await site.update('{"bad": 1}')
        assert (status, "analysis.bad: unknown key" in answer["detail"]) == (422, True)
        for body in ("", "no", "[]", "5", "[" * 50_000, b"\xff"):
            assert (await site.update(body))[0] == 422
        assert (await site.update('{"a": "' + "x" * 70_000 + '"}'))[0] == 413
        assert site.updates == [{"interval": "60s", "step": "10s"}]
        for method in ("GET", "PUT", "DELETE"):
            assert (await site.ask("/config/update", method))[0] == 405


async def test_no_page_of_elsewhere_changes_anything():
    async with served() as site:
        here = f"127.0.0.1:{site.port}"
        for content_type in ("text/plain", "application/x-www-form-urlencoded", ""):
            assert (await site.update("{}", content_type))[0] == 415
        for host in ("evil.example", "evil.example:9402", "10.0.0.1", "127.0.0.1.evil.example", "[::1", ""):
            assert (await site.update("{}", Host=host))[0] == 403
        for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "http://[", ""):
            assert (await site.update("{}", Origin=origin))[0] == 403
        assert site.updates == []
        for host in (here, "localhost", "LOCALHOST:9402", "[::1]:9402", "127.1.2.3"):
            assert (await site.update("{}", Host=host))[0] == 200
        assert (await site.update("{}", Origin=f"http://{here}"))[0] == 200


async def test_no_page_of_elsewhere_has_it_look():
    async with served(window([0.9])) as site:
        for method in ("GET", "POST"):
            for headers in (
                {"Host": "evil.example"},
                {"Origin": "http://evil.example"},
                {"Sec-Fetch-Site": "cross-site"},
            ):
                status, answer = await site.ask("/analyze", method, **headers)
                assert (status, answer["detail"].startswith("runs are ")) == (403, True)
        assert await site.get("/results") == []
        assert (await site.ask("/analyze", "GET", Host="localhost:1", **{"Sec-Fetch-Site": "none"}))[0] == 200


async def test_nobody_changes_anything_without_the_admin_token():
    async with served() as site:
        for nothing in ("", "Bearer", "Bearer ", "Basic YWRtaW46YWRtaW4=", TOKEN):
            status, answer = await site.update("{}", authorization=nothing)
            assert (status, "gpu-arbiterd token" in answer["detail"]) == (401, True)
        for wrong in (
            "Bearer no",
            f"Bearer {TOKEN}x",
            f"Bearer {TOKEN[:-1]}",
            f"Bearer {TOKEN} {TOKEN}",
            "Bearer \xe9",
        ):
            status, answer = await site.update("{}", authorization=wrong)
            assert (status, TOKEN in str(answer)) == (403, False)
        assert site.updates == []
        for right in (BEARER, f"bearer  {TOKEN} "):
            assert (await site.update("{}", authorization=right))[0] == 200
        connection = http.client.HTTPConnection("127.0.0.1", site.port)
        await asyncio.to_thread(connection.request, "POST", "/config/update")
        refused = await asyncio.to_thread(connection.getresponse)
        assert (refused.status, refused.getheader("www-authenticate")) == (401, 'Bearer realm="gpu-arbiter"')
        connection.close()


async def test_the_documentation_says_which_route_needs_the_token():
    async with served() as site:
        described = await site.get("/openapi.json")
        assert described["components"]["securitySchemes"]["adminToken"]["scheme"] == "bearer"
        secured = {
            (path, method)
            for path, methods in described["paths"].items()
            for method, route in methods.items()
            if "security" in route
        }
        assert secured == {("/config/update", "post")}


async def test_it_is_made_once_by_who_asks_first():
    made: list[int] = []

    def make() -> Any:
        made.append(1)
        return app.create(None, lambda: None)

    late = Late(make)
    site = Site([])
    end = serving.serve(site.listener, app.create(None, lambda: None, late))
    assert (await site.ask("/healthz"))[0] == 200
    assert made == []
    kept = gc.get_freeze_count()
    assert {status for status, _ in await asyncio.gather(*(site.ask("/results") for _ in range(5)))} == {404}
    assert made == [1]
    # What was imported for it is looked at no more.
    assert gc.get_freeze_count() > kept
    gc.unfreeze()
    await end()
