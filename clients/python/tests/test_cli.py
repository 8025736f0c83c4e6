"""The other commands."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from fakes.scripted_arbiter import ScriptedArbiter, refuse, seconds
from gpuarbiter.cli import main
from gpuarbiter.cli.tables import render
from gpuarbiter.v1 import admin_pb2, lease_pb2, snapshot_pb2

GIB = 2**30


def at(moment: int) -> Timestamp:
    return Timestamp(seconds=1_700_000_000 + moment)


def busy() -> snapshot_pb2.ArbiterSnapshot:
    """An arbiter with something of everything."""
    holder = lease_pb2.Holder(client_id="asr-worker-0")
    gpu = snapshot_pb2.GpuSnapshot(
        key="gpu:0",
        uuid="GPU-4b711341-011f-51e0-a7ca-a05cf0786de1",
        name="H200",
        health=snapshot_pb2.GPU_HEALTH_OK,
        cordoned=True,
        pressure=snapshot_pb2.PRESSURE_HIGH,
        cooldown_remaining=seconds(12),
        memory=snapshot_pb2.GpuMemory(
            total_bytes=24 * GIB, committed_bytes=6 * GIB, admissible_bytes=17 * GIB, headroom_bytes=GIB
        ),
        sample=snapshot_pb2.GpuSample(memory_used_bytes=5 * GIB, utilization_ratio=0.9),
        lease_ids=["lease-1"],
        queue_length=1,
        queue_limit=8,
        processes=[
            snapshot_pb2.GpuProcess(pid=7, name="python", memory_used_bytes=GIB, namespace="speech", pod="asr-0")
        ],
    )
    unmonitored = snapshot_pb2.GpuSnapshot(key="gpu:1", index=1, health=snapshot_pb2.GPU_HEALTH_UNMONITORED)
    lease = lease_pb2.Lease(
        lease_id="lease-1",
        task_type="ASR",
        holder=holder,
        gpus=[lease_pb2.GpuGrant(key="gpu:0", committed_bytes=6 * GIB)],
        sharing=lease_pb2.SHARING_EXCLUSIVE,
        state=lease_pb2.LEASE_STATE_HELD,
        priority=90,
        grant_time=at(0),
        hold_remaining=seconds(5),
    )
    ticket = snapshot_pb2.Ticket(
        request_id="request-1",
        task_type="NMT",
        holder=holder,
        priority=80,
        position=1,
        reason=lease_pb2.WAIT_REASON_GPU_BUSY,
        enqueue_time=at(2),
        candidates=["gpu:0"],
        memory_bytes=GIB,
    )
    return snapshot_pb2.ArbiterSnapshot(
        revision=9,
        snapshot_time=at(3),
        start_time=at(-8040),
        version="0.1.0",
        epoch=2,
        node="node-1",
        draining=True,
        recovering=True,
        gpus=[gpu, unmonitored],
        leases=[lease],
        queue=[ticket, snapshot_pb2.Ticket()],
        queue_length=5,
    )


def rows(text: str) -> list[list[str]]:
    """Lines, split where at least two spaces are."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]


def test_a_snapshot_for_people():
    table = rows(render(busy(), processes=True))
    up = ["node-1", "version 0.1.0", "epoch 2", "revision 9", "up 2h14m", "[draining]", "[recovering]", "[no NVML]"]
    assert table[0] == up
    state = "OK cordoned pressure cooldown 12s"
    ledger = ["5.0 GiB", "6.0 GiB", "0 B", "1.0 GiB", "17.0 GiB", "24.0 GiB"]
    assert table[3] == ["gpu:0", "GPU-4b711341-011f-51e0-a7ca-a05cf0786de1", "H200", state, *ledger, "90%", "1", "1/8"]
    assert table[4] == ["gpu:1", "-", "-", "UNMONITORED", *["-"] * 6, "-", "0", "0/0"]
    assert table[7] == ["lease-1", "ASR", "asr-worker-0", "gpu:0", "6.0 GiB", "EXCLUSIVE", "HELD", "90", "3.0s", "5.0s"]
    ticket = ["1", "request-1", "NMT", "asr-worker-0", "1 of gpu:0", "1.0 GiB", "80", "GPU_BUSY", "1.0s"]
    assert table[10] == ticket
    assert table[11] == ["0", "-", "-", "1 of any", "-", "0", "-", "-"], "what is not known is a dash"
    assert table[12] == ["and 3 more"]
    assert table[15] == ["gpu:0", "7", "python", "1.0 GiB", "-", "speech/asr-0"]


def test_a_snapshot_of_nothing():
    text = render(snapshot_pb2.ArbiterSnapshot(nvml_up=True), processes=True)
    assert text.startswith("arbiter  version -  epoch 0  revision 0  up -\n")
    assert "no leases" in text
    assert "nobody waits" in text
    assert "no processes" in text


def test_snapshot(scripted: ScriptedArbiter, capsys: pytest.CaptureFixture[str]):
    scripted.snapshots = [busy(), busy()]
    address = ["--address", scripted.address]
    assert main(["snapshot", *address, "--gpu", "0", "--processes", "--tickets", "5"]) == 0
    assert "asr-worker-0" in capsys.readouterr().out
    (request,) = scripted.seen["Snapshot"]
    assert (list(request.gpus), request.processes, request.max_tickets, request.watch) == (["0"], True, 5, False)
    assert main(["snapshot", *address, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["gpus"][0]["memory"]["totalBytes"] == str(24 * GIB)
    assert shown["queueLength"] == 5
    assert main(["snapshot", *address, "--json", "--watch", "--interval", "100ms"]) == 0
    assert [json.loads(line)["revision"] for line in capsys.readouterr().out.splitlines()] == ["9", "9"]
    assert scripted.seen["Snapshot"][2].min_interval == seconds(0.1)
    assert main(["snapshot", *address, "--watch"]) == 0
    assert "\x1b" not in capsys.readouterr().out, "not a terminal"


def test_release(scripted: ScriptedArbiter, capsys: pytest.CaptureFixture[str]):
    address = ["--address", scripted.address]
    assert main(["release", *address, "--lease-id", "lease-1", "--fencing-token", "7"]) == 0
    assert capsys.readouterr().out == "ended: RELEASED, held for 1.5s\n"
    assert scripted.seen["Release"][0].fencing_token == 7
    assert main(["release", *address, "--json", "--request-id", "mine"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "reason": "RELEASED",
        "heldSeconds": 1.5,
        "alreadyEnded": False,
        "memoryVerdict": "",
        "memoryPeakBytes": None,
    }


def test_what_operators_do(scripted: ScriptedArbiter, capsys: pytest.CaptureFixture[str]):
    address = ["--address", scripted.address, "--token", "secret"]
    assert main(["drain", *address, "--gpu", "0", "--grace", "30s", "--reason", "driver"]) == 0
    assert capsys.readouterr().out == "cordoned; leases left: 2\n"
    assert main(["drain", *address, "--all", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"leasesLeft": 2}
    assert main(["resume", *address, "--all"]) == 0
    assert main(["resume", *address, "--gpu", "0", "--json"]) == 0
    assert capsys.readouterr().out == "resumed\n{}\n"
    assert main(["revoke", *address, "lease-1", "--grace", "5s"]) == 0
    assert main(["revoke", *address, "lease-1"]) == 0
    assert main(["revoke", *address, "lease-1", "--json"]) == 0
    assert capsys.readouterr().out == "asked to yield\nrevoked\n{}\n"
    assert scripted.seen["Drain"] == [
        admin_pb2.DrainRequest(gpus=["0"], grace=seconds(30), reason="driver"),
        admin_pb2.DrainRequest(all=True),
    ]
    assert scripted.seen["Resume"] == [admin_pb2.ResumeRequest(all=True), admin_pb2.ResumeRequest(gpus=["0"])]
    assert scripted.seen["Revoke"][0] == admin_pb2.RevokeRequest(lease_id="lease-1", grace=seconds(5))
    assert scripted.metadata[0]["authorization"] == "Bearer secret"


def test_events(scripted: ScriptedArbiter, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GPU_ARBITER_TOKEN", "from the environment")
    assert main(["events", "--address", scripted.address, "--after", "3", "--limit", "2", "--follow"]) == 0
    assert capsys.readouterr().out == (
        "1  2023-11-14 22:13:20.000Z  QUEUED  ASR  gpu:0\n2  2023-11-14 22:13:20.000Z  GRANTED  ASR  gpu:0\n"
    )
    assert scripted.seen["ListEvents"] == [admin_pb2.ListEventsRequest(after_sequence=3, limit=2, follow=True)]
    assert scripted.metadata[0]["authorization"] == "Bearer from the environment"
    assert main(["events", "--address", scripted.address, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[1])["type"] == "EVENT_TYPE_GRANTED"


def test_events_for_other_programs(scripted: ScriptedArbiter, capsys: pytest.CaptureFixture[str]):
    events = ["events", "--address", scripted.address]
    assert main([*events, "--json"]) == 0
    as_json = capsys.readouterr().out
    assert main([*events, "--format", "jsonl"]) == 0
    assert capsys.readouterr().out == as_json
    assert main([*events, "--format", "csv", "--since", "2023-11-14T23:13:20+01:00"]) == 0
    assert capsys.readouterr().out == (
        "sequence,event_time,type,lease_id,request_id,task_type,client_id,namespace,pod,gpus,fencing_token,detail\r\n"
        "1,2023-11-14T22:13:20.000000Z,QUEUED,,,ASR,,,,gpu:0,,\r\n"
        "2,2023-11-14T22:13:20.000000Z,GRANTED,,,ASR,,,,gpu:0,,\r\n"
    )
    assert scripted.seen["ListEvents"][-1].since == at(0)
    assert main([*events, "--format", "chrome-trace", "--since", "10m"]) == 0
    assert json.loads(capsys.readouterr().out)["displayTimeUnit"] == "ms"
    ago = time.time() - scripted.seen["ListEvents"][-1].since.seconds
    assert 600 <= ago < 700


def test_an_error_is_one_line_with_its_reason(scripted: ScriptedArbiter, capsys: pytest.CaptureFixture[str]):
    scripted.answers["Drain"] = lambda _request, context: refuse(
        context, grpc.StatusCode.PERMISSION_DENIED, "NOT_PERMITTED", "the admin role is needed"
    )
    assert main(["drain", "--address", scripted.address, "--all"]) == 1
    assert capsys.readouterr().err == "gpu-arbiter: error: the admin role is needed [NOT_PERMITTED]\n"
    assert main(["drain", "--json", "--address", scripted.address, "--all"]) == 1
    error = json.loads(capsys.readouterr().err)
    assert error == {"event": "error", "message": "the admin role is needed", "reason": "NOT_PERMITTED"}


def test_an_interrupt_is_130(scripted: ScriptedArbiter, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_arguments: object):
        raise KeyboardInterrupt

    monkeypatch.setattr("gpuarbiter.cli.snapshot.run", interrupted)
    assert main(["snapshot", "--address", scripted.address]) == 130


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch):
    def broken(*_arguments: object):
        raise ZeroDivisionError

    monkeypatch.setattr("gpuarbiter.cli.snapshot.run", broken)
    with pytest.raises(ZeroDivisionError):
        main(["snapshot"])


def test_a_reader_that_has_seen_enough_is_no_error(scripted: ScriptedArbiter):
    command = [sys.executable, "-m", "gpuarbiter.cli", "snapshot", "--json", "--watch", "--address", scripted.address]
    scripted.snapshots = [busy()] * 500
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
        (["run", "--memory", "6G", "true"], "'6G' is not a size"),
        (["run", "--wait", "soon", "true"], "'soon' is not a duration"),
        (["run"], "required: COMMAND"),
        (["run", "--gpu", "0", "--"], "required: COMMAND"),
        (["run", "--count", "0", "true"], "'0' is no count; write 1 or more"),
        (["run", "--until-ready", "localhost:8000", "true"], "cannot be asked; write http://127.0.0.1:8000/health"),
        (["run", "--until-ready", "tcp://localhost", "true"], "cannot be asked"),
        (["run", "--until-ready", "http://localhost:99999", "true"], "Port out of range"),
        (["run", "--until-ready", "unix:socket", "true"], "cannot be asked"),
        (["run", "--on-yield", "NOW", "true"], "'NOW' is no signal; write a name such as TERM or USR1"),
        (["run", "--on-yield", "999", "true"], "is no signal"),
        (["sim-job", "--address", "127.0.0.1:1"], "unrecognized arguments: --address"),
        (["completion", "tcsh"], "invalid choice: 'tcsh'"),
        (["release"], "--lease-id --request-id is required"),
        (["drain"], "--gpu --all is required"),
        (["events", "--format", "xml"], "invalid choice: 'xml'"),
        (["events", "--json", "--format", "csv"], "not with --format csv"),
        (["events", "--follow", "--format", "chrome-trace"], "leave one out"),
        (["events", "--since", "yesterday"], "'yesterday' is no time; write how long ago"),
        (["events", "--since", "900000d"], "before the year 1"),
        (["sim-job", "--utilization", "2"], "out of range; 0 to 1"),
        (["sim-job", "--utilization", "x"], "could not convert"),
    ],
)
def test_wrong_usage_is_2_and_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One simulated GPU of 4 GiB."""
    monkeypatch.setenv("GPU_ARBITER_SIM_DIR", str(tmp_path))
    (tmp_path / "GPU-a").mkdir()
    (tmp_path / "GPU-a" / "gpu.json").write_text(json.dumps({"total_bytes": 4 * GIB, "uuid": "GPU-a", "index": 0}))
    return tmp_path


def sim_job(*arguments: str, devices: str | None = None) -> "subprocess.Popen[str]":
    environment = dict(os.environ) | ({} if devices is None else {"CUDA_VISIBLE_DEVICES": devices})
    command = [sys.executable, "-m", "gpuarbiter.cli", "sim-job", *arguments]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def test_a_simulated_job_holds_memory_until_it_ends(simulated: Path):
    with sim_job("--memory", "3GiB", "--time", "60s", "--utilization", "0.5", devices="GPU-a") as job:
        assert job.stderr is not None
        assert job.stderr.readline() == "gpu-arbiter: sim-job: 3.0 GiB on GPU-a\n"
        facts = json.loads((simulated / "GPU-a" / f"{job.pid}.json").read_text())
        assert (facts["memory_bytes"], facts["utilization_ratio"]) == (3 * GIB, 0.5)
        with sim_job("--memory", "2GiB", "--gpu", "GPU-a") as second:
            _, error = second.communicate(timeout=30)
            assert second.returncode == 1
            assert "out of memory on simulated GPU GPU-a" in error
        job.terminate()
        assert job.wait(timeout=30) == 128 + 15
    assert not (simulated / "GPU-a" / f"{job.pid}.json").exists()


def test_a_simulated_job_ends_by_itself(simulated: Path):
    with sim_job("--time", "10ms", "--gpu", "0") as job:
        assert job.wait(timeout=30) == 0
    assert simulated.exists()


def test_a_simulated_job_without_a_gpu_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GPU_ARBITER_SIM_DIR", str(tmp_path))
    with sim_job("--time", "10ms") as job:
        _, error = job.communicate(timeout=30)
    assert job.returncode == 1
    assert "no simulated GPU is there" in error
