"""gpu-arbiter analyze, against an HTTP side that says what a test wants."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from gpuarbiter.cli import main

JUDGED = {"status": "idle", "confidence": 0.9, "reason": "It sleeps.", "recommendation": "…", "ai_adjusted_score": 1.0}
HEALTH = {"source": "own samples", "last_analysis": "2027-01-15T08:00:00Z", "stale": False, "error": ""}


def gpu(name: str, score: float, **more: Any) -> dict[str, Any]:
    figures = {"gpu_util": 90.0, "mem_used_mb": 1024.0, "power_usage": 300.4, "score": score, "status": "high"}
    return {"gpu_id": name, "namespace": "team-a", "pod": "pod-0", **figures, "ai_analysis": JUDGED} | more


UNKNOWN = dict.fromkeys(["gpu_util", "mem_used_mb", "power_usage", "ai_analysis"]) | {
    "namespace": "",
    "pod": "",
    "client_id": "asr",
}


class Site:
    """Answers by method and path; what is not there is 404."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {
            "GET /results": (200, [gpu("gpu:0", 76.4), gpu("gpu:1", 1.5, **UNKNOWN)]),
            "GET /results/low": (200, {"count": 1, "threshold": 20, "gpus": [gpu("gpu:1", 1.5)]}),
            "GET /health": (200, HEALTH),
            "POST /analyze": (200, {"status": "ok", "message": "2 GPUs in 0.01 s"}),
        }
        self.asked: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                site.asked.append(f"{self.command} {self.path}")
                status, body = site.answers.get(site.asked[-1], (404, "Not Found"))
                self.send_response(status)
                self.end_headers()
                self.wfile.write((body if isinstance(body, str) else json.dumps(body)).encode())

            do_GET = do_POST = _answer  # noqa: N815 -- their names there

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_the_last_run_is_a_table_with_the_lowest_first(site: Site, capsys: pytest.CaptureFixture[str]):
    assert main(["analyze", "--url", site.url]) == 0
    head, table = capsys.readouterr().out.split("\n\n")
    assert head == "by own samples, 2027-01-15T08:00:00Z"
    assert [line.split(maxsplit=11) for line in table.splitlines()] == [
        ["GPU", "NAMESPACE", "HOLDER", "UTIL", "MEMORY", "POWER", "SCORE", "STATUS", "JUDGED", "SURE", "WHY"],
        ["gpu:1", "-", "asr", "-", "-", "-", "1.5", "high", "-", "-", "-"],
        ["gpu:0", "team-a", "pod-0", "90%", "1024", "MiB", "300", "W", "76.4", "high", "idle", "0.90  It sleeps."],
    ]
    assert site.asked == ["GET /results", "GET /health"]


def test_a_judgement_by_a_model_is_marked(site: Site, capsys: pytest.CaptureFixture[str]):
    by = [gpu(f"gpu:{source}", 1.0, ai_analysis={**JUDGED, "source": source}) for source in ("model", "rules")]
    site.answers["GET /results"] = 200, by
    assert main(["analyze", "--url", site.url]) == 0
    _, model, rules = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert ("idle (model)" in model, "(model)" in rules) == (True, False)


def test_with_now_it_looks_first_and_with_low_it_shows_only_those(site: Site, capsys: pytest.CaptureFixture[str]):
    assert main(["analyze", "--url", f"{site.url}/metrics", "--now", "--low", "--json"]) == 0
    assert site.asked == ["POST /analyze", "GET /results/low"]
    assert [each["gpu_id"] for each in json.loads(capsys.readouterr().out)] == ["gpu:1"]


def test_the_source_can_be_made_sure_of(site: Site, capsys: pytest.CaptureFixture[str]):
    assert main(["analyze", "--url", site.url, "--source", "own", "--json"]) == 0
    assert main(["analyze", "--url", site.url, "--source", "prometheus", "--now"]) == 1
    said = capsys.readouterr()
    assert "goes by own samples, not by Prometheus: analysis.prometheus.url decides" in said.err
    assert site.asked == ["GET /health", "GET /results", "GET /health"]
    site.answers["GET /health"] = (200, HEALTH | {"source": "Prometheus"})
    assert main(["analyze", "--url", site.url, "--source", "prometheus"]) == 0


def test_a_run_that_failed_is_told_and_what_is_stale_is_shown_as_that(site: Site, capsys: pytest.CaptureFixture[str]):
    site.answers["POST /analyze"] = (503, {"status": "failed", "message": "it is\x1b[2J gone"})
    site.answers["GET /health"] = (200, HEALTH | {"stale": True, "error": "gone"})
    assert main(["analyze", "--url", site.url, "--now"]) == 1
    said = capsys.readouterr()
    assert said.err == "gpu-arbiter: error: it is?[2J gone\n"
    assert said.out.startswith("by own samples, 2027-01-15T08:00:00Z  [stale: gone]\n\nGPU")


def test_names_from_elsewhere_do_not_reach_the_terminal_as_they_are(site: Site, capsys: pytest.CaptureFixture[str]):
    site.answers["GET /results"] = (200, [gpu("gpu:0", 1.0, pod="\x1b]0;x\x07")])
    assert main(["analyze", "--url", site.url]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_before_the_first_run_there_is_nothing(site: Site, capsys: pytest.CaptureFixture[str]):
    site.answers |= {"GET /results": (200, []), "GET /health": (200, HEALTH | {"last_analysis": None})}
    assert main(["analyze", "--url", site.url]) == 0
    assert capsys.readouterr().out == "by own samples, no run yet\n\nno GPUs\n"
    site.answers["GET /health"] = (200, HEALTH | {"last_analysis": None, "error": "nobody there"})
    assert main(["analyze", "--url", site.url]) == 0
    assert capsys.readouterr().out == "by own samples, no run yet  [failed: nobody there]\n\nno GPUs\n"


def test_where_none_is_low_that_is_said(site: Site, capsys: pytest.CaptureFixture[str]):
    site.answers["GET /results/low"] = (200, {"count": 0, "threshold": 20, "gpus": []})
    assert main(["analyze", "--url", site.url, "--low"]) == 0
    assert capsys.readouterr().out.endswith("\n\nno GPU scores that low\n")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((404, "Not Found"), "is the analysis off (analysis.enabled)?"),
        ((200, "<html>"), "answers no JSON: is this an arbiter?"),
        ((200, [{"gpu_id": "x"}]), "is not what an analysis does"),
        ((200, [gpu("x", 1.0) | {"score": "much"}]), "is not what an analysis does"),
        ((200, 5), "is not what an analysis does"),
    ],
)
def test_an_answer_that_is_none_is_an_error(
    site: Site, answer: tuple[int, Any], said: str, capsys: pytest.CaptureFixture[str]
):
    site.answers["GET /results"] = answer
    assert main(["analyze", "--url", site.url]) == 1
    assert said in capsys.readouterr().err


def test_an_answer_to_a_run_that_is_none_is_an_error(site: Site, capsys: pytest.CaptureFixture[str]):
    site.answers["POST /analyze"] = (200, {"detail": "?"})
    assert main(["analyze", "--url", site.url, "--now"]) == 1
    assert "is not what an analysis does" in capsys.readouterr().err


def test_nobody_there_is_an_error(site: Site, capsys: pytest.CaptureFixture[str]):
    site.server.shutdown()
    site.server.server_close()
    assert main(["analyze", "--url", site.url]) == 1
    assert f"nobody answers at {site.url}: " in capsys.readouterr().err
