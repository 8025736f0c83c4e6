"""The command line against a real arbiter: commands under a lease, simulated jobs, and what operators do."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from e2e.harness.cli import Cli
from e2e.harness.client import Client
from e2e.harness.commands import lease_of
from e2e.harness.waiting import eventually
from gpuarbiter.v1 import lease_pb2, snapshot_pb2
from support.messages import GIB
from support.process import Arbiterd

Start = Callable[..., Arbiterd]
Connect = Callable[[Arbiterd], Client]
Shell = Callable[[Arbiterd], Cli]


async def memory(client: Client, condition: Callable[[snapshot_pb2.GpuSnapshot], bool]) -> snapshot_pb2.GpuSnapshot:
    """Waits for the GPU to be in a state; what it then is."""

    async def look() -> snapshot_pb2.GpuSnapshot | None:
        gpu = await client.gpu(processes=True)
        return gpu if condition(gpu) else None

    found = await eventually(look, "the memory")
    assert found is not None
    return found


def test_run_passes_the_exit_code_on(arbiter: Arbiterd, shell: Shell, tmp_path: Path):
    run = shell(arbiter)
    plain = tmp_path / "plain"
    plain.write_text("no program")
    for command, code in (
        (["true"], 0),
        (["sh", "-c", "exit 3"], 3),
        (["sh", "-c", "kill -TERM $$"], 128 + signal.SIGTERM),
        (["no-such-command"], 127),
        ([str(plain)], 126),
    ):
        ended = run("run", "--", *command)
        assert ended.returncode == code, ended.stderr


async def test_run_exits_with_124_when_no_gpu_could_be_had_in_time(
    arbiter: Arbiterd, connect: Connect, shell: Shell, tmp_path: Path
):
    client = connect(arbiter)
    held = client.acquire("ASR", client="asr-worker-0")
    await held.granted()
    ran = tmp_path / "ran"
    waiting = shell(arbiter).start("run", "--wait", "200ms", "--", "touch", str(ran))

    async def over() -> bool:
        return waiting.poll() is not None

    await eventually(over, "the wait to be over")
    code, said = Cli.end_of(waiting)
    assert code == 124
    assert "asr-worker-0" in said
    assert not ran.exists()


def test_run_exits_with_125_when_there_is_no_arbiter(arbiterd: Start, shell: Shell):
    arbiter = arbiterd()
    run = shell(arbiter)
    arbiter.stop()
    ended = run("run", "--", "true")
    assert ended.returncode == 125
    assert arbiter.grpc in ended.stderr
    assert "Traceback" not in ended.stderr


def test_those_who_wait_run_one_after_another(arbiter: Arbiterd, shell: Shell, tmp_path: Path):
    run = shell(arbiter)
    diary = tmp_path / "diary"
    diary.touch()
    script = 'echo in >>"$0"; sleep 0.2; echo out >>"$0"'
    started = [run.start("run", "--", "sh", "-c", script, str(diary)) for _ in range(3)]
    for each in started:
        code, said = Cli.end_of(each)
        assert code == 0, said
    assert diary.read_text().split() == ["in", "out"] * 3


def test_run_tells_the_command_what_it_got(arbiterd: Start, shell: Shell):
    arbiter = arbiterd("gpus=sim:2x24GiB")
    run = shell(arbiter)
    gpus = json.loads(run("snapshot", "--json").stdout)["gpus"]
    ended = run("run", "--gpu", "gpu:1", "--", "sh", "-c", "env; gpu-arbiter snapshot --json >&2")
    assert ended.returncode == 0, ended.stderr
    told = dict(line.split("=", 1) for line in ended.stdout.splitlines() if "=" in line)
    assert told["CUDA_VISIBLE_DEVICES"] == gpus[1]["uuid"]
    assert told["CUDA_VISIBLE_DEVICES"].startswith("GPU-")
    assert told["GPU_ARBITER_ADDRESS"] == arbiter.grpc
    lease = json.loads(ended.stderr)["leases"][0]
    assert (told["GPU_ARBITER_LEASE_ID"], told["GPU_ARBITER_FENCING_TOKEN"]) == (
        lease["leaseId"],
        lease["fencingToken"],
    )
    both = run("run", "--count", "2", "--", "sh", "-c", 'echo "$CUDA_VISIBLE_DEVICES"')
    assert sorted(both.stdout.strip().split(",")) == sorted(gpu["uuid"] for gpu in gpus)


def test_the_snapshot_for_programs_and_for_people(arbiterd: Start, shell: Shell):
    run = shell(arbiterd("gpus=sim:2x24GiB"))
    snapshot = json.loads(run("snapshot", "--json").stdout)
    assert [gpu["key"] for gpu in snapshot["gpus"]] == ["gpu:0", "gpu:1"]
    assert snapshot["gpus"][0]["memory"]["totalBytes"] == str(24 * GIB)
    assert snapshot["leases"] == []
    table = run("snapshot")
    assert table.returncode == 0
    assert "gpu:1" in table.stdout
    assert "24GiB" in table.stdout.replace(" ", "").replace(".0", "")


async def test_a_simulated_job_moves_the_memory_in_the_snapshot(arbiterd: Start, connect: Connect, shell: Shell):
    arbiter = arbiterd()
    client = connect(arbiter)
    run = shell(arbiter)
    job = ["gpu-arbiter", "sim-job", "--memory", "4GiB", "--time", "10m", "--utilization", "0.5"]
    started = run.start("run", "--task", "TRAIN", "--memory", "6GiB", "--", *job)
    lease = await lease_of(client, "TRAIN")
    busy = await memory(client, lambda gpu: gpu.sample.memory_used_bytes == 4 * GIB)
    # It is the job's, by way of the command that started it: not charged beside the declaration.
    assert (busy.memory.unleased_bytes, busy.memory.committed_bytes) == (0, 6 * GIB)
    assert [process.lease_id for process in busy.processes] == [lease.lease_id]
    assert busy.sample.utilization_ratio == 0.5
    started.send_signal(signal.SIGTERM)
    assert Cli.end_of(started)[0] == 128 + signal.SIGTERM
    await memory(client, lambda gpu: gpu.sample.memory_used_bytes == 0 and gpu.memory.committed_bytes == 0)
    assert not await client.events("COOLDOWN_STARTED")


async def test_a_simulated_job_without_a_lease_counts_as_unleased(arbiterd: Start, connect: Connect, shell: Shell):
    arbiter = arbiterd()
    client = connect(arbiter)
    shell(arbiter).start("sim-job", "--memory", "4GiB", "--time", "10m")
    await memory(client, lambda gpu: gpu.memory.unleased_bytes == 4 * GIB)
    await client.acquire(memory=20 * GIB, shared=True).waits_for("MEMORY")


async def test_a_command_that_outlives_wrapper_and_guard_keeps_the_gpu(arbiterd: Start, connect: Connect, shell: Shell):
    arbiter = arbiterd("cooldown=10m")
    client = connect(arbiter)
    started = shell(arbiter).start("run", "--task", "TRAIN", "--", "gpu-arbiter", "sim-job", "--time", "10m")
    lease = await lease_of(client, "TRAIN")
    busy = await memory(client, lambda gpu: gpu.sample.memory_used_bytes == GIB)
    waiting = client.acquire()
    await waiting.waits_for("GPU_BUSY")
    # Stopped, so that it cannot end the command when the wrapper dies; then both are gone, and the command is not.
    os.kill(lease.holder.pid, signal.SIGSTOP)
    started.kill()
    started.wait()
    os.kill(lease.holder.pid, signal.SIGKILL)
    await waiting.waits_for("COOLDOWN")
    assert (await client.happens("ENDED", lease.lease_id)).detail.startswith("HOLDER_DIED")
    os.kill(busy.processes[0].pid, signal.SIGKILL)
    await waiting.granted()


async def test_what_operators_do(arbiterd: Start, connect: Connect, shell: Shell):
    arbiter = arbiterd()
    client = connect(arbiter)
    run = shell(arbiter)
    held = client.acquire("ASR", ttl=60, request_id="job-1")
    lease = await held.granted()
    assert _ok(run("drain", "--all", "--reason", "new driver"))
    waiting = client.acquire("NMT")
    await waiting.waits_for("DRAINING")
    assert _ok(run("revoke", lease.lease_id, "--reason", "new driver"))
    ended = await held.until("ended")
    assert (ended.reason, ended.detail) == (lease_pb2.END_REASON_OPERATOR, "new driver")
    assert _ok(run("resume", "--all"))
    granted = await waiting.granted()
    assert _ok(run("release", "--lease-id", granted.lease_id))
    told = _ok(run("events", "--json")).stdout
    types = [json.loads(line)["type"].removeprefix("EVENT_TYPE_") for line in told.splitlines()]
    wanted = ["STARTED", "GRANTED", "DRAINED", "QUEUED", "ENDED", "RESUMED", "GRANTED", "ENDED"]
    assert [kind for kind in types if "COOLDOWN" not in kind] == wanted


async def test_a_command_whose_lease_is_revoked_is_ended(arbiter: Arbiterd, connect: Connect, shell: Shell):
    client = connect(arbiter)
    run = shell(arbiter)
    started = run.start("run", "--task", "TRAIN", "--", "sleep", "600")
    lease = await lease_of(client, "TRAIN")
    _ok(run("revoke", lease.lease_id))
    code, said = Cli.end_of(started)
    assert code == 123
    assert "OPERATOR" in said


def _ok(ended: Any) -> Any:
    assert ended.returncode == 0, ended.stderr
    return ended


async def test_the_history_of_a_real_arbiter_as_a_trace(arbiterd: Start, connect: Connect, shell: Shell):
    arbiter = arbiterd("gpus=sim:2x24GiB", "cooldown=0s")
    client = connect(arbiter)
    run = shell(arbiter)
    asked = [client.acquire("ASR", memory=GIB, shared=True, candidates=["gpu:0"], ttl=60) for _ in range(2)]
    leases = [await each.granted() for each in asked]
    waiting = client.acquire("NMT", candidates=["gpu:0"], request_id="waits")
    await waiting.waits_for("GPU_BUSY")
    for lease in leases:
        _ok(run("release", "--lease-id", lease.lease_id))
    held = await waiting.granted()
    told = json.loads(_ok(run("events", "--format", "chrome-trace")).stdout)["traceEvents"]
    rows = {each["tid"]: each["args"]["name"] for each in told if each["name"] == "thread_name"}
    slices = {each["args"].get("lease", "wait"): each for each in told if each["ph"] == "X"}
    assert {rows[slices[lease.lease_id]["tid"]] for lease in leases} == {"gpu:0", "gpu:0 (2)"}
    assert rows[slices["wait"]["tid"]] == "NMT"
    assert "arbiter" in rows.values(), "where its start is"
    assert slices[held.lease_id]["args"]["mark"] == "still live"
    arrow = {each["ph"]: each for each in told if each["ph"] in "sf"}
    for end, at in (("s", slices["wait"]), ("f", slices[held.lease_id])):
        assert (arrow[end]["pid"], arrow[end]["tid"]) == (at["pid"], at["tid"])
        assert at["ts"] < arrow[end]["ts"] < at["ts"] + at["dur"]
    assert _ok(run("top", "--once")).stdout.count("gpu:") >= 2
