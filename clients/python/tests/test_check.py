"""The checklist against a scripted arbiter: each fault yields the line that is about it, and no other."""

import json
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest

from fakes.scripted_arbiter import Call, refuse
from fakes.scripted_site import CLASSIC, Figures, HoldingArbiter, Reply, ScriptedSite
from gpuarbiter._check.page import Page, Unreadable
from gpuarbiter.cli import kinds, main
from gpuarbiter.v1 import lease_pb2

FORM = [
    "/healthz is 200 OK",
    "an unknown path is 404",
    "/metrics to GET",
    "/metrics to HEAD",
    "the text can be read",
    "at least 25 families",
    "HELP and TYPE of every sample",
    "our prefix only (gpu_arbiter_)",
    "no series twice",
    "no _created",
    "OpenMetrics when asked for",
    "OpenMetrics ends in # EOF",
    "OpenMetrics can be read",
    "OpenMetrics: HELP and TYPE",
    "OpenMetrics: no _created",
]
IDLE = ["idle: no lease above 0", "idle: no waiter above 0"]
CLIENTS = [
    "one client: one lease",
    "one client: memory committed",
    "one client: its request is counted",
    "one client: the grant is counted",
    "two clients: two leases",
    "released: none of them left",
]
ALL = [*FORM, *IDLE, *CLIENTS]

Spoil = Callable[[ScriptedSite], None]


@pytest.fixture
def site() -> Iterator[ScriptedSite]:
    arbiter = HoldingArbiter()
    arbiter.start()
    made = ScriptedSite(arbiter)
    made.start()
    yield made
    made.stop()
    arbiter.stop()


class Outcome:
    """What the command found."""

    def __init__(self, code: int, written: str) -> None:
        self.code = code
        self.told = json.loads(written)
        self.found = {line["check"]: line["found"] for line in self.told["checks"]}
        assert self.told["passed"] == (code == 0)

    def having(self, status: str) -> list[str]:
        return [line["check"] for line in self.told["checks"] if line["status"] == status]


@pytest.fixture
def check(site: ScriptedSite, capsys: pytest.CaptureFixture[str]) -> Callable[[], Outcome]:
    def run() -> Outcome:
        code = main(["check", "--json", "--address", site.arbiter.address, "--metrics", site.url])
        return Outcome(code, capsys.readouterr().out)

    return run


Check = Callable[[], Outcome]


def test_an_arbiter_that_is_right_passes_every_line(site: ScriptedSite, check: Check):
    outcome = check()
    assert outcome.code == 0
    assert outcome.having("PASS") == ALL
    first, second = site.arbiter.seen["Acquire"]
    assert {first.task_type, second.task_type} == {"gpu-arbiter-check"}
    assert {first.gpu.sharing, second.gpu.sharing} == {lease_pb2.SHARING_SHARED}
    assert first.holder.client_id != second.holder.client_id
    assert list(second.gpu.candidates) == ["gpu:0"], "beside the first"
    assert not site.arbiter.held, "it gave both back"


def test_without_the_reader_of_pages_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert main(["check", "--metrics", "http://127.0.0.1:1"]) == 1
    said = "gpu-arbiter: error: --metrics needs prometheus-client: pip install 'gpu-arbiter-client[check]'\n"
    assert capsys.readouterr() == ("", said)


def test_for_people_it_is_a_line_each_and_a_sum(site: ScriptedSite, capsys: pytest.CaptureFixture[str]):
    site.answers["/healthz"] = Reply(body="\x1b[2J")
    command = ["check", "--address", site.arbiter.address, "--metrics", f"{site.url}/metrics/"]
    assert main(command) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line[6:42].rstrip() for line in lines[:-1]] == ALL
    assert lines[0].startswith("FAIL  /healthz is 200 OK")
    assert "\x1b" not in lines[0]
    assert re.fullmatch(r"PASS  one client: one lease +1 shown, 1 held", lines[17])
    assert lines[-1] == "22 passed, 1 failed, 0 skipped"


def answer(path: str, reply: Reply) -> Spoil:
    return lambda site: site.answers.update({path: reply})


def page(change: Callable[[str], str]) -> Spoil:
    def spoil(site: ScriptedSite) -> None:
        site.spoil = change

    return spoil


def openmetrics(change: Callable[[str], str]) -> Spoil:
    def spoil(site: ScriptedSite) -> None:
        site.spoil_openmetrics = change

    return spoil


def without(pattern: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        changed = re.sub(pattern, "", text, flags=re.MULTILINE)
        assert changed != text
        return changed

    return change


def figures(change: Callable[[Figures], Figures]) -> Spoil:
    def spoil(site: ScriptedSite) -> None:
        site.figures = change

    return spoil


def when(number: int, **wrong: int) -> Spoil:
    """Wrong figures while so many leases are held."""

    def spoil(site: ScriptedSite) -> None:
        site.figures = lambda right: replace(right, **wrong) if len(site.arbiter.held) == number else right

    return spoil


def after_release(site: ScriptedSite) -> None:
    arbiter = site.arbiter
    site.figures = lambda right: replace(right, leases=1) if arbiter.grants == 2 and not arbiter.held else right


def keeps_leases(site: ScriptedSite) -> None:
    site.arbiter.releases = False


TOO_NEW = "text/plain; version=1.0.0; charset=utf-8"
ALIEN = "# HELP process_cpu_seconds Words.\n# TYPE process_cpu_seconds gauge\nprocess_cpu_seconds 1\n"
CREATED = "# HELP gpu_arbiter_x_created Words.\n# TYPE gpu_arbiter_x_created gauge\ngpu_arbiter_x_created 1\n"


@pytest.mark.parametrize(
    ("spoil", "failing", "found"),
    [
        (answer("/healthz", Reply(body="ok")), ["/healthz is 200 OK"], "200 b'ok'"),
        (answer("/healthz", Reply(500, "OK")), ["/healthz is 200 OK"], "500 b'OK'"),
        (
            answer("/gpu-arbiter-check/no-such-path", Reply(200, "hello")),
            ["an unknown path is 404"],
            "200 text/plain; charset=utf-8",
        ),
        (
            answer("/gpu-arbiter-check/no-such-path", Reply(302, location="/healthz")),
            ["an unknown path is 404"],
            "302 text/plain; charset=utf-8",
        ),
        (answer("HEAD /metrics", Reply(405)), ["/metrics to HEAD"], "405 text/plain; charset=utf-8"),
        (answer("HEAD /metrics", Reply(content_type=TOO_NEW)), ["/metrics to HEAD"], f"200 {TOO_NEW}"),
        (page(without("^# HELP gpu_arbiter_leases.*\n")), ["HELP and TYPE of every sample"], "gpu_arbiter_leases"),
        (page(without("^# TYPE gpu_arbiter_waiters.*\n")), ["HELP and TYPE of every sample"], "gpu_arbiter_waiters"),
        (
            page(lambda text: text + "gpu_arbiter_bare 1\ngpu_arbiter_naked 1\n"),
            ["HELP and TYPE of every sample"],
            "gpu_arbiter_bare, gpu_arbiter_naked",
        ),
        (page(without("^.*filler_[ab].*\n")), ["at least 25 families"], "24 with samples"),
        (page(without("^gpu_arbiter_filler_[ab].*\n")), ["at least 25 families"], "24 with samples"),
        (page(lambda text: text + ALIEN), ["our prefix only (gpu_arbiter_)"], "process_cpu_seconds"),
        (
            page(lambda text: text + 'gpu_arbiter_rpc_messages_total{type="AcquireRequest",direction="received"} 3\n'),
            ["no series twice"],
            "gpu_arbiter_rpc_messages_total{direction='received',type='AcquireRequest'}",
        ),
        (page(lambda text: text + CREATED), ["no _created"], "gpu_arbiter_x_created"),
        (openmetrics(lambda text: CREATED + text), ["OpenMetrics: no _created"], "gpu_arbiter_x_created"),
        (openmetrics(lambda text: text[:-1]), ["OpenMetrics ends in # EOF"], None),
        (
            openmetrics(without("^# TYPE gpu_arbiter_rpc.*\n")),
            ["OpenMetrics: HELP and TYPE"],
            "gpu_arbiter_rpc_messages_total",
        ),
        (when(0, leases=1), [IDLE[0], "released: none of them left"], None),
        (when(0, waiters=2), [IDLE[1]], "gpu_arbiter_waiters{gpu='gpu:0',reason='gpu_busy',task='other'}"),
        (figures(lambda right: replace(right, waiters=None)), [IDLE[1]], None),
        (when(1, leases=0), ["one client: one lease"], "0 shown, 1 held"),
        (when(1, leases=2), ["one client: one lease"], "2 shown, 1 held"),
        (when(1, committed=0), ["one client: memory committed"], "gpu:0: 0 B shown, 64.0 MiB promised"),
        (figures(lambda right: replace(right, committed=None)), ["one client: memory committed"], "gpu:0: no series"),
        (
            figures(lambda right: replace(right, received=7)),
            ["one client: its request is counted"],
            "AcquireRequest: 7, then 7",
        ),
        (
            figures(lambda right: replace(right, sent=0)),
            ["one client: the grant is counted"],
            "AcquireResponse.granted: 0, then 0",
        ),
        (
            figures(lambda right: replace(right, sent=None)),
            ["one client: the grant is counted"],
            "no series of AcquireResponse.granted",
        ),
        (when(2, leases=1), ["two clients: two leases"], "1 shown, 2 held"),
        (after_release, ["released: none of them left"], "1 shown, 0 held"),
        (keeps_leases, ["released: none of them left"], "2 shown, 2 held"),
    ],
)
def test_each_fault_fails_the_line_that_is_about_it(
    site: ScriptedSite, check: Check, spoil: Spoil, failing: list[str], found: str | None
):
    spoil(site)
    outcome = check()
    assert outcome.code == 1
    assert outcome.having("FAIL") == failing
    assert outcome.having("PASS") == [name for name in ALL if name not in failing]
    assert found is None or outcome.found[failing[0]] == found


def test_the_older_content_type_is_refused_for_get_and_head(site: ScriptedSite, check: Check):
    text = site.reply("GET", "/metrics", "").body
    site.answers["GET /metrics"] = site.answers["HEAD /metrics"] = Reply(body=text, content_type=TOO_NEW)
    failing = check().having("FAIL")
    assert failing[:2] == ["/metrics to GET", "/metrics to HEAD"]
    assert "OpenMetrics when asked for" in failing


def test_who_knows_no_openmetrics_is_told_so(site: ScriptedSite, check: Check):
    text = site.reply("GET", "/metrics", "").body
    site.answers["GET /metrics"] = Reply(body=text, content_type=CLASSIC)
    outcome = check()
    assert outcome.having("FAIL")[:3] == FORM[10:13]
    assert outcome.found["OpenMetrics when asked for"] == f"200 {CLASSIC}"


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        (without("^# EOF\n"), FORM[11:13]),
        (lambda text: text + "gpu_arbiter_late 1\n", FORM[11:13]),
        (lambda text: text.replace("# TYPE", "#TYPE"), FORM[12:13]),
        (lambda text: text.replace("# EOF", "gpu_arbiter_leases 1\n# EOF"), FORM[12:13]),
    ],
)
def test_openmetrics_that_cannot_be_read_leaves_its_last_lines_out(
    site: ScriptedSite, check: Check, change: Callable[[str], str], failing: list[str]
):
    site.spoil_openmetrics = change
    outcome = check()
    assert outcome.having("FAIL") == failing
    assert outcome.having("PASS") == [name for name in ALL if name not in {*failing, *FORM[13:]}]


def test_a_page_that_cannot_be_read_leaves_the_rest_out(site: ScriptedSite, check: Check):
    site.spoil = lambda text: text + "gpu_arbiter_x{broken 1\n"
    outcome = check()
    assert outcome.having("FAIL") == ["the text can be read"]
    assert outcome.having("PASS") == [*FORM[:4], *FORM[10:]]
    assert not site.arbiter.seen["Acquire"]


def test_an_empty_page_is_none(site: ScriptedSite, check: Check):
    site.spoil = lambda _text: ""
    assert "the text can be read" in check().having("FAIL")


def test_metrics_that_are_switched_off_are_one_line(site: ScriptedSite, check: Check):
    site.answers["/metrics"] = Reply(404, "Not Found")
    outcome = check()
    assert outcome.code == 1
    assert outcome.having("PASS") == FORM[:2]
    assert outcome.having("FAIL") == ["/metrics"]
    assert outcome.found["/metrics"] == "404: the metrics are switched off (telemetry.metrics: false)"


def test_a_page_that_goes_away_fails_what_is_left(site: ScriptedSite, check: Check):
    def script(call: Call) -> Iterator[Any]:
        site.answers["/metrics"] = Reply(503)
        yield from site.arbiter._grant(call)

    site.arbiter.scripts.append(script)
    outcome = check()
    assert outcome.having("FAIL") == CLIENTS
    assert outcome.found[CLIENTS[0]] == "the page of metrics: 503 text/plain; charset=utf-8"
    assert not site.arbiter.held


# -- others use it --


def other(site: ScriptedSite) -> None:
    gpu = lease_pb2.GpuGrant(key="gpu:0", committed_bytes=2**30)
    site.arbiter.hold(lease_pb2.Lease(lease_id="other", task_type="ASR", gpus=[gpu]))


def test_leases_of_others_skip_idleness_and_nothing_else(site: ScriptedSite, check: Check):
    other(site)
    site.arbiter.waiting = 3
    outcome = check()
    assert outcome.code == 0
    assert outcome.having("SKIP") == IDLE
    assert outcome.having("PASS") == [*FORM, *CLIENTS]
    assert outcome.found["idle: no lease above 0"] == "others use the arbiter: leases: 1"
    assert outcome.found["two clients: two leases"] == "3 shown, 3 held, 1 by others"
    assert outcome.found["released: none of them left"] == "1 shown, 1 held, 1 by others"


def test_figures_are_wrong_beside_others_too(site: ScriptedSite, check: Check):
    other(site)
    site.change(leases=2)
    assert check().having("FAIL") == ["two clients: two leases", "released: none of them left"]


def test_an_arbiter_that_never_stands_still_is_not_judged(site: ScriptedSite, check: Check):
    site.arbiter.restless = 1
    site.figures = lambda right: replace(right, leases=7)
    outcome = check()
    assert outcome.code == 0
    counted = ["one client: its request is counted", "one client: the grant is counted"]
    assert outcome.having("SKIP") == [name for name in [*IDLE, *CLIENTS] if name not in counted]


@pytest.mark.parametrize(
    ("code", "reason", "status"),
    [
        (grpc.StatusCode.DEADLINE_EXCEEDED, "WAIT_TIMEOUT", "SKIP"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "SKIP"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "CLIENT_LIMIT", "SKIP"),
        (grpc.StatusCode.UNAVAILABLE, "JOURNAL_UNAVAILABLE", "FAIL"),
        (grpc.StatusCode.FAILED_PRECONDITION, "INFEASIBLE", "FAIL"),
    ],
)
def test_without_a_lease_what_needs_one_is_skipped_or_failed(
    site: ScriptedSite, check: Check, code: grpc.StatusCode, reason: str, status: str
):
    def refusing(call: Call) -> Iterator[Any]:
        refuse(call.context, code, reason, "not now")
        yield

    site.arbiter.scripts.append(refusing)
    outcome = check()
    assert outcome.having(status) == CLIENTS
    assert outcome.having("PASS") == [*FORM, *IDLE]
    assert "not now" in outcome.found[CLIENTS[0]]


def test_a_second_lease_that_cannot_be_had_skips_what_needs_it(site: ScriptedSite, check: Check):
    def full(call: Call) -> Iterator[Any]:
        refuse(call.context, grpc.StatusCode.DEADLINE_EXCEEDED, "WAIT_TIMEOUT", "not now")
        yield

    site.arbiter.scripts.extend([site.arbiter._grant, full])
    outcome = check()
    assert outcome.having("SKIP") == CLIENTS[-2:]
    assert outcome.code == 0
    assert not site.arbiter.held


# -- nobody answers --


@contextmanager
def nobody() -> Iterator[str]:
    """An address that refuses connections: bound, and never listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def test_an_url_that_nobody_answers_at_is_one_line(capsys: pytest.CaptureFixture[str]):
    with nobody() as address:
        assert main(["check", "--metrics", f"http://{address}"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"gpu-arbiter: error: http://{address} is out of reach: [Errno 111] Connection refused\n"


def test_what_speaks_no_http_is_one_line(capsys: pytest.CaptureFixture[str]):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def babble() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"220 mail.example\r\n")
                connection.recv(4096)

        thread = threading.Thread(target=babble)
        thread.start()
        assert main(["check", "--metrics", f"http://127.0.0.1:{listener.getsockname()[1]}"]) == 1
        thread.join()
    assert "is out of reach: 220 mail.example" in capsys.readouterr().err


def test_an_arbiter_that_cannot_be_reached_fails_what_needs_it(site: ScriptedSite, capsys: pytest.CaptureFixture[str]):
    with nobody() as address:
        code = main(["check", "--json", "--metrics", site.url, "--address", address])
    outcome = Outcome(code, capsys.readouterr().out)
    assert outcome.having("PASS") == FORM
    assert outcome.having("FAIL") == [*IDLE, *CLIENTS]
    assert address in outcome.found[IDLE[0]]


def test_proxies_of_the_environment_are_passed_by(check: Check, monkeypatch: pytest.MonkeyPatch):
    with nobody() as address:
        monkeypatch.setenv("http_proxy", f"http://{address}")
        assert check().code == 0


# -- the parts --


@pytest.mark.parametrize(
    ("written", "base"),
    [
        ("http://127.0.0.1:9402", "http://127.0.0.1:9402"),
        ("http://127.0.0.1:9402/", "http://127.0.0.1:9402"),
        ("http://127.0.0.1:9402/metrics", "http://127.0.0.1:9402"),
        ("https://[::1]:9402/gpu/metrics/", "https://[::1]:9402/gpu"),
    ],
)
def test_the_base_of_an_url(written: str, base: str):
    assert kinds.site(written) == base


@pytest.mark.parametrize("body", [b"\xff", b"x{", b"x{a=b} 1", b"x y z", b"# TYPE x nonsense\nx 1\n", b"x 1_0\n"])
def test_what_is_no_page_is_unreadable_in_either_format(body: bytes):
    for openmetrics_too in (False, True):
        with pytest.raises(Unreadable):
            Page(body, openmetrics=openmetrics_too)
