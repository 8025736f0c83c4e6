"""The checklist of what monitors see, on real arbiters."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2e.harness.cli import Cli
from e2e.harness.client import Client
from support.messages import GIB
from support.process import Arbiterd, environment

Start = Callable[..., Arbiterd]
Connect = Callable[[Arbiterd], Client]
Check = Callable[..., tuple[int, dict[str, list[str]], dict[str, str]]]


@pytest.fixture
def check(folder: Path) -> Check:
    """The exit code, the checks by their status, and what was found."""

    def run(arbiter: Arbiterd, path: str = "") -> tuple[int, dict[str, list[str]], dict[str, str]]:
        shell = Cli(environment(folder, GPU_ARBITER_ADDRESS=arbiter.grpc))
        done = shell("check", "--json", "--metrics", f"http://{arbiter.http}{path}")
        assert done.stderr == ""
        checks: list[dict[str, Any]] = json.loads(done.stdout)["checks"]
        by_status: dict[str, list[str]] = {"PASS": [], "FAIL": [], "SKIP": []}
        for each in checks:
            by_status[each["status"]].append(each["check"])
        return done.returncode, by_status, {each["check"]: each["found"] for each in checks}

    return run


def clients_only(names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(("one client", "two clients", "released"))]


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("gpus=sim:3x8GiB", "policies.gpu-arbiter-check.priority=90", "policies.ASR={}"),
        ('gpus=[{key: "gpu:0", memory: 8GiB}]',),
        ("defaults.sharing=EXCLUSIVE", "defaults.busy_policy=SKIP", "telemetry.lease_info=true"),
        ("enabled=false",),
    ],
    ids=["plain", "three GPUs", "unmonitored", "other defaults", "disabled"],
)
def test_an_idle_arbiter_passes_every_line_and_again(arbiterd: Start, check: Check, settings: tuple[str, ...]):
    arbiter = arbiterd(*settings)
    for path in ("", "/metrics"):
        code, by_status, found = check(arbiter, path)
        assert (code, by_status["FAIL"], by_status["SKIP"]) == (0, [], []), found
        assert len(by_status["PASS"]) == 23
        assert found["two clients: two leases"] == "2 shown, 2 held"


async def test_beside_shared_leases_only_idleness_is_skipped(arbiterd: Start, connect: Connect, check: Check):
    arbiter = arbiterd()
    held = connect(arbiter).acquire("ASR", memory=GIB, shared=True)
    await held.granted()
    code, by_status, found = check(arbiter)
    assert (code, by_status["FAIL"], by_status["SKIP"]) == (0, [], ["idle: no lease above 0"]), found
    assert found["two clients: two leases"] == "3 shown, 3 held, 1 by others"
    assert found["released: none of them left"] == "1 shown, 1 held, 1 by others"


async def test_behind_an_exclusive_lease_what_needs_a_lease_is_skipped(arbiterd: Start, connect: Connect, check: Check):
    arbiter = arbiterd()
    held = connect(arbiter).acquire("ASR", client="asr-worker-0")
    await held.granted()
    code, by_status, found = check(arbiter)
    assert (code, by_status["FAIL"]) == (0, []), found
    assert len(clients_only(by_status["SKIP"])) == 6
    assert "asr-worker-0" in found["one client: one lease"]


def test_on_drained_gpus_what_needs_a_lease_is_skipped(arbiterd: Start, check: Check, folder: Path):
    arbiter = arbiterd()
    assert Cli(environment(folder, GPU_ARBITER_ADDRESS=arbiter.grpc))("drain", "--all").returncode == 0
    code, by_status, found = check(arbiter)
    assert (code, by_status["FAIL"]) == (0, []), found
    assert len(clients_only(by_status["SKIP"])) == 6


def test_metrics_that_are_switched_off_are_one_line(arbiterd: Start, check: Check):
    code, by_status, found = check(arbiterd("telemetry.metrics=false"))
    assert code == 1
    assert by_status["PASS"] == ["/healthz is 200 OK", "an unknown path is 404"]
    assert by_status["FAIL"] == ["/metrics"]
    assert found["/metrics"] == "404: the metrics are switched off (telemetry.metrics: false)"


def test_an_arbiter_that_is_gone_is_one_line(arbiterd: Start, folder: Path):
    arbiter = arbiterd()
    arbiter.stop()
    done = Cli(environment(folder))("check", "--metrics", f"http://{arbiter.http}")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert f"http://{arbiter.http} is out of reach" in line


@pytest.mark.parametrize(("transport", "how"), [("grpc", "/proc"), ("socket", "the attestation socket")])
def test_a_set_up_passes_every_line_and_is_left_as_it_was(arbiter: Arbiterd, folder: Path, transport: str, how: str):
    shell = Cli(environment(folder, GPU_ARBITER_ADDRESS=getattr(arbiter, transport)))
    done = shell("check", "--json")
    lines = {line["check"]: line for line in json.loads(done.stdout)["checks"]}
    assert {line["status"] for line in lines.values()} == {"PASS"}, done.stdout
    assert lines["pids"]["found"] == f"the arbiter saw the holder die (it knows it by {how})"
    state = json.loads(shell("snapshot", "--json").stdout)
    assert (state["leases"], state["queueLength"]) == ([], 0)


async def test_a_set_up_in_use_is_looked_at_without_disturbing_it(
    arbiterd: Start, connect: Connect, shell: Callable[[Arbiterd], Cli]
):
    arbiter = arbiterd()
    held = connect(arbiter).acquire("ASR")
    await held.granted()
    done = shell(arbiter)("check")
    assert done.returncode == 0
    assert "SKIP  a lease is granted  others use the GPUs" in done.stdout


# Another PID namespace, as a container has one.
ELSEWHERE = ("unshare", "--pid", "--fork", "--mount-proc")


def _may_leave() -> bool:
    try:
        return subprocess.run([*ELSEWHERE, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not _may_leave(), reason="PID namespaces cannot be made here: that needs root")
@pytest.mark.parametrize(
    ("transport", "status", "says"),
    [("grpc", "WARN", "cannot see the processes here"), ("socket", "PASS", "by the attestation socket")],
)
def test_whether_pids_are_seen_from_another_namespace(
    arbiter: Arbiterd, folder: Path, transport: str, status: str, says: str
):
    shell = Cli(environment(folder, GPU_ARBITER_ADDRESS=getattr(arbiter, transport)))
    started = shell.start_other(*ELSEWHERE, "gpu-arbiter", "check", "--json", cwd=folder)
    said, _ = started.communicate(timeout=60)
    assert started.returncode == 0
    lines = {line["check"]: line for line in json.loads(said)["checks"]}
    assert (lines["pids"]["status"], says in lines["pids"]["found"]) == (status, True)
    assert lines["a lease is granted"]["status"] == "PASS"
