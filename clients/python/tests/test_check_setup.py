"""The checklist of a set-up: each fault yields the line that is about it, and says what to do."""

import json
import os
import re
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from fakes.scripted_arbiter import Call, ScriptedAdmin, ScriptedArbiter, refuse
from gpuarbiter._check import reach
from gpuarbiter._version import __version__
from gpuarbiter.cli import main
from gpuarbiter.v1 import snapshot_pb2

REACH = ["without an arbiter", "address", "somebody listens"]
ABOUT = ["an arbiter answers", "credentials", "version", "clock", "journal", "NVML"]


class Found(NamedTuple):
    code: int
    lines: dict[str, dict[str, str]]

    def having(self, *statuses: str) -> list[str]:
        return [check for check, line in self.lines.items() if line["status"] in statuses]

    def only(self, status: str) -> dict[str, str]:
        """The one line that did not come out well."""
        (check,) = self.having("WARN", "FAIL", "SKIP")
        assert self.lines[check]["status"] == status
        assert self.code == (status == "FAIL")
        return self.lines[check]


Check = Callable[..., Found]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Check:
    def run(address: str, *arguments: str) -> Found:
        code = main(["check", "--json", "--address", address, *arguments])
        told = json.loads(capsys.readouterr().out)
        assert told["passed"] == (code == 0)
        return Found(code, {line["check"]: line for line in told["checks"]})

    return run


def snapshot(**fields: Any) -> snapshot_pb2.ArbiterSnapshot:
    """Of an arbiter that is well."""
    now = Timestamp()
    now.FromDatetime(datetime.now(UTC))
    gpu = snapshot_pb2.GpuSnapshot(key="gpu:0", name="H200", health=snapshot_pb2.GPU_HEALTH_OK)
    well: dict[str, Any] = {"snapshot_time": now, "version": __version__, "epoch": 3, "nvml_up": True, "gpus": [gpu]}
    return snapshot_pb2.ArbiterSnapshot(**well | fields)


def holder_died(call: Call):
    yield call.granted()
    yield call.ended("HOLDER_DIED")


@pytest.fixture
def well(scripted: ScriptedArbiter) -> ScriptedArbiter:
    scripted.snapshots = [snapshot()]
    scripted.scripts.append(holder_died)
    return scripted


def test_a_set_up_that_is_right_passes_every_line(well: ScriptedArbiter, check: Check):
    found = check(well.address)
    assert found.code == 0
    assert found.having("PASS") == [*REACH, *ABOUT, "GPU gpu:0", "a lease is granted", "pids"]
    assert not any(line["todo"] for line in found.lines.values())
    (request,) = well.seen["Acquire"]
    assert (request.task_type, request.gpu.memory_bytes) == ("gpu-arbiter-check", 64 * 2**20)
    assert request.holder.pid not in {0, os.getpid()}, "who holds is not who looks"


def test_for_people_it_is_a_line_each_with_what_to_do(
    well: ScriptedArbiter, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GPU_ARBITER_ADDRESS", well.address)
    monkeypatch.setenv("GPU_ARBITER_ON_UNAVAILABLE", "proceed")
    assert main(["check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("WARN  without an arbiter  programs go on without a lease")
    assert lines[0].endswith(" -- unset it where two programs on one GPU do harm")
    assert lines[1] == f"PASS  address             {well.address} (GPU_ARBITER_ADDRESS)"
    assert lines[-1] == "11 passed, 1 warned, 0 failed, 0 skipped"


def gpu(**fields: Any) -> snapshot_pb2.ArbiterSnapshot:
    return snapshot(gpus=[snapshot_pb2.GpuSnapshot(key="gpu:0", name="H200", **fields)])


def earlier(seconds: float) -> snapshot_pb2.ArbiterSnapshot:
    then = Timestamp()
    then.FromDatetime(datetime.now(UTC) - timedelta(seconds=seconds))
    return snapshot(snapshot_time=then)


@pytest.mark.parametrize(
    ("make", "status", "check_name", "says", "todo"),
    [
        (lambda: snapshot(version="9.9.9"), "WARN", "version", "9.9.9 there", "the same version"),
        (lambda: earlier(3600), "WARN", "clock", "behind this one", "NTP"),
        (lambda: earlier(-3600), "WARN", "clock", "ahead of this one", "NTP"),
        (lambda: snapshot(draining=True), "WARN", "journal", "stopping", "once it is started"),
        (lambda: snapshot(recovering=True), "WARN", "journal", "start 3", "recovery grace"),
        (lambda: snapshot(nvml_up=False), "WARN", "NVML", "does not answer", "libnvidia-ml.so.1"),
        (lambda: snapshot(gpus=[]), "FAIL", "GPUs", "has none", "nvidia-smi -L"),
        (lambda: gpu(health=snapshot_pb2.GPU_HEALTH_LOST), "FAIL", "GPU gpu:0", "H200: LOST", "dmesg"),
        (lambda: gpu(health=snapshot_pb2.GPU_HEALTH_STALE), "WARN", "GPU gpu:0", "STALE", "nvidia-smi"),
        (lambda: gpu(health=1, cordoned=True), "WARN", "GPU gpu:0", "cordoned", "resume --gpu gpu:0"),
    ],
)
def test_what_the_arbiter_says_of_itself(
    well: ScriptedArbiter,
    check: Check,
    make: Callable[[], snapshot_pb2.ArbiterSnapshot],
    status: str,
    check_name: str,
    says: str,
    todo: str,
):
    well.snapshots = [make()]
    line = check(well.address).only(status)
    assert line["check"] == check_name
    assert says in line["found"]
    assert todo in line["todo"]


def test_simulated_gpus_need_no_driver(well: ScriptedArbiter, check: Check):
    simulated = snapshot_pb2.GpuSnapshot(key="gpu:0", name="Simulated GPU", health=snapshot_pb2.GPU_HEALTH_OK)
    well.snapshots = [snapshot(nvml_up=False, gpus=[simulated])]
    assert check(well.address).having("WARN", "FAIL") == []


@pytest.mark.parametrize(
    ("code", "reason", "status", "says"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, "NOT_PERMITTED", "PASS", "need the admin role"),
        (grpc.StatusCode.INTERNAL, "", "WARN", "as an operator"),
    ],
)
def test_what_the_credentials_are_good_for(
    well: ScriptedArbiter,
    check: Check,
    monkeypatch: pytest.MonkeyPatch,
    code: grpc.StatusCode,
    reason: str,
    status: str,
    says: str,
):
    def refused(_self: object, _request: object, context: Any):
        refuse(context, code, reason)

    monkeypatch.setattr(ScriptedAdmin, "ListEvents", refused)
    well.stop()
    well.start()
    line = check(well.address).lines["credentials"]
    assert line["status"] == status
    assert says in line["found"]


@pytest.mark.parametrize(
    ("code", "reason", "check_name", "todo"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", "credentials", "GPU_ARBITER_TOKEN"),
        (grpc.StatusCode.PERMISSION_DENIED, "NOT_PERMITTED", "credentials", "access"),
        (grpc.StatusCode.UNIMPLEMENTED, "", "an arbiter answers", "another service"),
        (grpc.StatusCode.UNAVAILABLE, "", "an arbiter answers", "what listens there"),
    ],
)
def test_who_is_refused_hears_why(
    well: ScriptedArbiter,
    check: Check,
    monkeypatch: pytest.MonkeyPatch,
    code: grpc.StatusCode,
    reason: str,
    check_name: str,
    todo: str,
):
    def refused(_self: object, _request: object, context: Any):
        refuse(context, code, reason)

    monkeypatch.setattr(ScriptedArbiter, "Snapshot", refused)
    well.stop()
    well.start()
    found = check(well.address)
    assert list(found.lines)[-1] == check_name, "the rest is left out"
    assert todo in found.only("FAIL")["todo"]


@pytest.mark.parametrize(
    ("reason", "status", "todo"),
    [
        ("WAIT_TIMEOUT", "SKIP", ""),
        ("JOURNAL_UNAVAILABLE", "FAIL", "journal.path"),
        ("GPU_UNAVAILABLE", "FAIL", "docs/troubleshooting.md says more of GPU_UNAVAILABLE"),
    ],
)
def test_a_lease_that_cannot_be_had(well: ScriptedArbiter, check: Check, reason: str, status: str, todo: str):
    def script(call: Call):
        refuse(call.context, grpc.StatusCode.FAILED_PRECONDITION, reason)
        yield

    well.scripts.clear()
    well.scripts.append(script)
    line = check(well.address).only(status)
    assert line["check"] == "a lease is granted"
    assert todo in line["todo"]


def test_an_arbiter_that_does_not_see_us_die(well: ScriptedArbiter, check: Check, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gpuarbiter._check.pids._DEATH_SECONDS", 0.0)
    well.scripts.clear()
    line = check(well.address).only("WARN")
    assert line["check"] == "pids"
    assert "hostPID" in line["todo"]
    assert well.seen["Release"], "it gave the lease back"


# -- the line to it --


def test_addresses_that_lead_nowhere(check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    left = tmp_path / "left"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(left))
    for address, says, todo in (
        ("nowhere", "is not an address", "correct --address"),
        ("127.0.0.1:1", "Connection refused", "gpu-arbiterd serve"),
        ("nowhere.invalid:1", "nowhere.invalid:", "name of the host"),
        (f"unix:{tmp_path}", "is no socket", "correct the path"),
        (f"unix:{tmp_path}/nothing", "does not exist", "gpu-arbiterd serve"),
        (f"unix:{left}", "nobody listens", "gpu-arbiterd serve"),
    ):
        line = check(address).only("FAIL")
        assert says in line["found"]
        assert todo in line["todo"]
    monkeypatch.setenv("GPU_ARBITER_ON_UNAVAILABLE", "perhaps")
    assert check("nowhere").having("FAIL") == ["without an arbiter", "address"]


def test_what_the_system_refuses_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def failing(error: OSError):
        def connect(*_arguments: object, **_options: object):
            raise error

        return connect

    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        monkeypatch.setattr(socket.socket, "connect", failing(PermissionError()))
        found, todo = reach._unix_problem(path)
        assert re.search(r"permission denied \(.*/s belongs to \w+:\w+, s[rwx-]{9}\)", found)
        assert "group" in todo
        monkeypatch.setattr(socket.socket, "connect", failing(OSError(5, "I/O error")))
        assert reach._unix_problem(path)[0] == "I/O error"
    monkeypatch.setattr(Path, "stat", failing(PermissionError()))
    assert reach._owner(path) == ""
    monkeypatch.setattr(socket, "create_connection", failing(TimeoutError()))
    assert "no answer" in reach._tcp("127.0.0.1:1").found
