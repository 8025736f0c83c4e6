"""Waiting until a command is ready, and sharing its GPU then."""

import http.server
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gpuarbiter import ArbiterError, ArbiterUnavailable, ResizeRefused
from gpuarbiter.cli import ready
from gpuarbiter.cli.news import NotReady, Ready

PATIENCE = 30.0


@pytest.fixture
def answering() -> Iterator[Callable[[int], str]]:
    """The URL of a server that answers everything with a status."""
    started: list[http.server.HTTPServer] = []

    def serve(status: int) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status if self.path == "/v1/health?deep" else 404)
                self.send_header("location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        started.append(server)
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/v1/health?deep"

    yield serve
    for each in started:
        each.shutdown()
        each.server_close()


@pytest.mark.parametrize(
    ("status", "problem"),
    [(200, ""), (204, ""), (302, "it answers 302"), (404, "it answers 404"), (503, "it answers 503")],
)
def test_nothing_but_2xx_is_ready(answering: Callable[[int], str], status: int, problem: str):
    assert ready.problem_of(answering(status)) == problem


def test_what_does_not_answer_is_not_ready(tmp_path: Path):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        port = deaf.getsockname()[1]
        for url in (f"http://127.0.0.1:{port}/", f"https://127.0.0.1:{port}/", f"tcp://127.0.0.1:{port}"):
            assert "Connection refused" in ready.problem_of(url)
    assert "No such file" in ready.problem_of(f"unix:{tmp_path}/socket")


def test_who_takes_the_call_is_ready(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert ready.problem_of(f"tcp://127.0.0.1:{server.getsockname()[1]}") == ""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert ready.problem_of(f"unix:{path}") == ""


def test_what_speaks_another_language_is_not_ready(answering: Callable[[int], str]):
    url = answering(200).replace("http:", "https:")
    assert ready.problem_of(url).startswith("no answer: ")


class FakeLease:
    """Answers a resize with what is next."""

    gpus = ()

    def __init__(self, *answers: Exception | None) -> None:
        self.asked: list[dict[str, Any]] = []
        self._answers = list(answers)

    def resize(self, **options: Any) -> None:
        self.asked.append(options)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if answer is not None:
            raise answer


def outcome(url: str, lease: Any, bound: float = 60.0) -> object:
    events: queue.SimpleQueue[object] = queue.SimpleQueue()
    waiting = ready.Waiting(url, lease, 7, timedelta(seconds=bound), events)
    waiting.start()
    try:
        return events.get(timeout=PATIENCE)
    finally:
        waiting.stop()


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(ready, "_SHARE_SECONDS", 0.0)


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize(
    ("answers", "refused"),
    [
        ([None], ""),
        ([ResizeRefused("a reading is missing")], "a reading is missing"),
        ([ArbiterUnavailable("away", code="UNAVAILABLE")], "away"),
        ([ArbiterError("never")], "never"),
    ],
)
def test_a_gpu_that_cannot_be_shared_stays_exclusive(
    answering: Callable[[int], str], answers: list[Exception | None], refused: str
):
    lease = FakeLease(*answers)
    told = outcome(answering(200), lease)
    assert isinstance(told, Ready)
    assert told.refused == refused
    assert lease.asked == [{"memory": 7, "shared": True}]


def test_sharing_is_tried_again(answering: Callable[[int], str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ready, "POLL_SECONDS", 0.001)
    lease = FakeLease(ResizeRefused("a reading is missing"), ArbiterUnavailable("away", code="UNAVAILABLE"), None)
    told = outcome(answering(200), lease)
    assert isinstance(told, Ready)
    assert (told.refused, len(lease.asked)) == ("", 3)


@pytest.mark.usefixtures("_quick")
def test_who_is_not_ready_in_time_is_told_of(answering: Callable[[int], str]):
    told = outcome(answering(503), FakeLease(None), bound=0.01)
    assert isinstance(told, NotReady)
    assert told.problem == "it answers 503"


def test_a_command_that_has_ended_is_not_waited_for(answering: Callable[[int], str]):
    events: queue.SimpleQueue[object] = queue.SimpleQueue()
    for status, lease in ((503, FakeLease(None)), (200, FakeLease(ResizeRefused("no")))):
        waiting = ready.Waiting(answering(status), lease, None, timedelta(0), events)  # type: ignore[arg-type]
        waiting.start()
        waiting.stop()
    assert events.empty()
