"""`gpu-arbiter run` on a real arbiter: what outlives what, runs inside runs, readiness, yield requests."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.harness.cli import Cli
from e2e.harness.client import Client
from e2e.harness.waiting import eventually
from fakes.nvml import FakeNvml
from fakes.polling import until
from gpuarbiter.v1 import lease_pb2
from support.messages import GIB
from support.process import Arbiterd, environment

Start = Callable[..., Arbiterd]
Connect = Callable[[Arbiterd], Client]
Shell = Callable[[Arbiterd], Cli]

# Ends only when it may, and says when it was asked.
STUBBORN = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: (folder / "asked").touch())
(folder / "pid").write_text(str(os.getpid()))
while not (folder / "go").exists():
    time.sleep(0.01)
"""
# Like vllm serve or llama-server: it answers 503 while the model loads, then 200.
SERVER = """
import http.server, pathlib, sys
loaded = pathlib.Path(sys.argv[2])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if loaded.exists() else 503)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def shell(folder: Path) -> Iterator[Shell]:
    made: list[Cli] = []

    def on(arbiter: Arbiterd) -> Cli:
        made.append(Cli(environment(folder, GPU_ARBITER_ADDRESS=arbiter.grpc)))
        return made[-1]

    yield on
    for each in made:
        each.close()


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def written(path: Path) -> str:
    """What a file says, once it says something."""
    until(lambda: path.exists() and bool(path.read_text()), f"{path} to be written")
    return path.read_text().strip()


async def lease_of(client: Client, task_type: str) -> lease_pb2.Lease:
    async def look() -> lease_pb2.Lease | None:
        leases = (await client.snapshot()).leases
        return next((lease for lease in leases if lease.task_type == task_type), None)

    found = await eventually(look, f"a lease of {task_type}")
    assert found is not None
    return found


async def test_orphans_are_ended_and_their_memory_is_free_before_the_lease_ends(
    arbiterd: Start, connect: Connect, shell: Shell, tmp_path: Path
):
    fake = FakeNvml(tmp_path, reap=True)
    arbiter = arbiterd("gpus=auto", "sampler.interval=20ms", more=fake.env)
    client = connect(arbiter)
    # Two orphans: one in the command's group, and a daemon that left it.
    for name in ("group", "daemon"):
        (tmp_path / name).mkdir()
    program = tmp_path / "stubborn.py"
    program.write_text(STUBBORN)
    script = '"$0" "$1" "$2/group" & setsid "$0" "$1" "$2/daemon" & while [ ! -s "$2/daemon/pid" ]; do sleep 0.02; done'
    started = shell(arbiter).start(
        "run", "--task", "TRAIN", "--", "sh", "-c", script, sys.executable, str(program), str(tmp_path)
    )
    pids = [int(written(tmp_path / name / "pid")) for name in ("group", "daemon")]
    for pid in pids:
        fake.allocate(0, pid, GIB)
    # The command itself is over, and both were asked to end.
    until(lambda: all((tmp_path / name / "asked").exists() for name in ("group", "daemon")))
    lease = await lease_of(client, "TRAIN")

    async def both_seen() -> bool:
        processes = (await client.gpu(processes=True)).processes
        return sorted(each.pid for each in processes if each.lease_id == lease.lease_id) == sorted(pids)

    await eventually(both_seen, "the memory of both orphans to count for the lease")
    waiting = client.acquire("ASR", memory=23 * GIB)
    await waiting.waits_for("GPU_BUSY")
    (tmp_path / "group" / "go").touch()
    until(lambda: not lives(pids[0]))
    assert (await lease_of(client, "TRAIN")).lease_id == lease.lease_id, "the daemon still lives"
    assert started.poll() is None
    (tmp_path / "daemon" / "go").touch()
    # It could not be granted this much while either of them had memory.
    await waiting.granted()
    assert not any(lives(pid) for pid in pids)
    assert (await client.happens("ENDED", lease.lease_id)).detail.startswith("RELEASED")
    assert Cli.end_of(started)[0] == 0


@pytest.mark.parametrize("sharing", [(), ("--shared", "--memory", "1GiB")], ids=["exclusive", "shared"])
async def test_a_killed_wrapper_takes_its_command_along_and_the_lease_lasts_until_then(
    arbiterd: Start, connect: Connect, shell: Shell, tmp_path: Path, sharing: tuple[str, ...]
):
    arbiter = arbiterd("cooldown=0s")
    client = connect(arbiter)
    command = [sys.executable, "-c", STUBBORN, str(tmp_path)]
    started = shell(arbiter).start("run", "--task", "TRAIN", *sharing, "--", *command)
    pid = int(written(tmp_path / "pid"))
    lease = await lease_of(client, "TRAIN")
    assert lease.holder.pid == parent_of(pid), "who holds is not who gets killed"
    started.kill()
    started.wait()
    until((tmp_path / "asked").exists)
    # Neither the broken stream nor the dead wrapper ends it: the command may still use the GPU.
    still = await lease_of(client, "TRAIN")
    assert (still.lease_id, still.state) == (lease.lease_id, lease_pb2.LEASE_STATE_DETACHED)
    waiting = client.acquire()
    await waiting.waits_for("GPU_BUSY")
    (tmp_path / "go").touch()
    await waiting.granted()
    assert not lives(pid)
    assert (await client.happens("ENDED", lease.lease_id)).detail.startswith("RELEASED")
    until(lambda: not lives(lease.holder.pid))


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def test_a_wrapper_that_is_killed_while_it_waits_leaves_nothing(
    arbiterd: Start, connect: Connect, shell: Shell
):
    arbiter = arbiterd()
    client = connect(arbiter)
    held = client.acquire("ASR")
    await held.granted()
    started = shell(arbiter).start("run", "--", "true")

    async def queued() -> int:
        return (await client.snapshot()).queue_length

    await eventually(queued, "it to wait")
    started.kill()

    async def empty() -> bool:
        return not await queued()

    await eventually(empty, "the queue to be empty")


async def test_a_killed_guard_is_the_end_of_the_command_too(arbiterd: Start, connect: Connect, shell: Shell):
    arbiter = arbiterd()
    client = connect(arbiter)
    started = shell(arbiter).start("run", "--task", "TRAIN", "--", "sh", "-c", "sleep 600 & sleep 600")
    lease = await lease_of(client, "TRAIN")

    def children() -> list[int]:
        stats = (path.read_text().rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat"))
        return [int(fields[2]) for fields in stats if int(fields[1]) == lease.holder.pid]

    until(children, "the command to begin")
    (group,) = children()
    os.kill(lease.holder.pid, signal.SIGKILL)
    code, said = Cli.end_of(started)
    assert (code, said) == (125, "gpu-arbiter: error: the guard process is gone, and the lease with it; ending the command\n")
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)
    assert (await client.happens("ENDED", lease.lease_id)).detail.startswith("HOLDER_DIED")


async def test_two_runs_on_two_gpus_run_side_by_side(arbiterd: Start, connect: Connect, shell: Shell, tmp_path: Path):
    arbiter = arbiterd("gpus=sim:2x24GiB")
    run = shell(arbiter)
    # Each waits for the other: they end only if both run at the same time.
    script = 'echo "$CUDA_VISIBLE_DEVICES" >"$0/$1"; while [ ! -s "$0/$2" ]; do sleep 0.02; done'
    started = [run.start("run", "--", "sh", "-c", script, str(tmp_path), *names) for names in (("a", "b"), ("b", "a"))]
    assert [Cli.end_of(each)[0] for each in started] == [0, 0]
    devices = {(tmp_path / name).read_text().strip() for name in ("a", "b")}
    assert len(devices) == 2


# -- runs inside runs --


def test_a_run_inside_a_run_joins_its_lease(arbiterd: Start, shell: Shell):
    arbiter = arbiterd("gpus=sim:2x24GiB")
    run = shell(arbiter)
    gpus = [gpu["uuid"] for gpu in json.loads(run("snapshot", "--json").stdout)["gpus"]]
    inner = "gpu-arbiter --version >/dev/null; echo $CUDA_VISIBLE_DEVICES $GPU_ARBITER_GPUS $GPU_ARBITER_LEASE_ID"
    script = f"echo $GPU_ARBITER_LEASE_ID; gpu-arbiter run --json --memory 3GiB {{}} -- sh -c '{inner}'; echo code $?"
    done = run("run", "--count", "2", "--memory", "4GiB", "--", "sh", "-c", script.format("--gpu gpu:1"))
    outer, told, code = done.stdout.splitlines()
    assert (told, code) == (f"{gpus[1]} gpu:1 {outer}", "code 0")
    assert json.loads(done.stderr.splitlines()[-1])["event"] == "joined"
    events = [json.loads(line)["type"] for line in run("events", "--json").stdout.splitlines()]
    assert events.count("EVENT_TYPE_GRANTED") == 1


def test_a_run_inside_a_run_that_would_wait_for_itself_is_refused(arbiterd: Start, shell: Shell):
    arbiter = arbiterd()
    run = shell(arbiter)
    for more in ("--memory 5GiB", "--count 2", "--shared --memory 5GiB"):
        done = run("run", "--memory", "4GiB", "--", "sh", "-c", f"gpu-arbiter run {more} -- true; echo code $?")
        assert done.stdout == "code 125\n"
        assert "ask for more in the outer run" in done.stderr
    unbounded = run("run", "--", "sh", "-c", "gpu-arbiter run --memory 5GiB -- echo joined")
    assert unbounded.stdout == "joined\n", "an exclusive lease without a declaration has all of the GPU"


def test_a_run_inside_a_run_gets_a_lease_of_its_own_where_it_can(arbiterd: Start, shell: Shell):
    arbiter = arbiterd("gpus=sim:2x24GiB")
    run = shell(arbiter)
    for more in ("--memory 5GiB", "--new-lease"):
        inner = f"gpu-arbiter run {more} -- sh -c 'echo $GPU_ARBITER_LEASE_ID $GPU_ARBITER_GPUS'"
        done = run("run", "--memory", "4GiB", "--", "sh", "-c", f"echo $GPU_ARBITER_LEASE_ID $GPU_ARBITER_GPUS; {inner}")
        outside, inside = (line.split() for line in done.stdout.splitlines())
        assert outside[0] != inside[0]
        assert {outside[1], inside[1]} == {"gpu:0", "gpu:1"}
    waits = "gpu-arbiter run --new-lease --gpu $GPU_ARBITER_GPUS --wait 100ms -- true; echo code $?"
    assert run("run", "--", "sh", "-c", waits).stdout == "code 124\n"


def test_a_lease_that_has_ended_is_not_joined(arbiterd: Start, shell: Shell, folder: Path):
    arbiter = arbiterd()
    ended = shell(arbiter)("run", "--", "sh", "-c", "echo $GPU_ARBITER_LEASE_ID").stdout.strip()
    stale = Cli(environment(folder, GPU_ARBITER_ADDRESS=arbiter.grpc, GPU_ARBITER_LEASE_ID=ended))
    now = stale("run", "--", "sh", "-c", "echo $GPU_ARBITER_LEASE_ID")
    assert now.returncode == 0, now.stderr
    assert now.stdout.strip() not in {"", ended}


async def test_a_killed_run_inside_a_run_takes_its_command_along_and_not_the_lease(
    arbiterd: Start, connect: Connect, shell: Shell, tmp_path: Path
):
    arbiter = arbiterd()
    client = connect(arbiter)
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    script = 'gpu-arbiter run -- "$0" "$1/stubborn.py" "$1" & echo $! >"$1/inner"; wait; sleep 600'
    started = shell(arbiter).start("run", "--task", "TRAIN", "--", "sh", "-c", script, sys.executable, str(tmp_path))
    pid = int(written(tmp_path / "pid"))
    lease = await lease_of(client, "TRAIN")
    os.kill(int(written(tmp_path / "inner")), signal.SIGKILL)
    until((tmp_path / "asked").exists)
    (tmp_path / "go").touch()
    until(lambda: not lives(pid))
    assert (await lease_of(client, "TRAIN")).lease_id == lease.lease_id
    assert started.poll() is None


# -- until it is ready --


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_until_it_is_ready_the_gpu_is_its_own_and_then_shared(
    arbiterd: Start, connect: Connect, shell: Shell, tmp_path: Path
):
    arbiter = arbiterd()
    client = connect(arbiter)
    port, loaded = free_port(), tmp_path / "loaded"
    url = f"http://127.0.0.1:{port}/health"
    options = ["--task", "LLM", "--memory", "6GiB", "--until-ready", url]
    started = shell(arbiter).start("run", *options, "--", sys.executable, "-c", SERVER, str(port), str(loaded))
    lease = await lease_of(client, "LLM")
    assert lease.sharing == lease_pb2.SHARING_EXCLUSIVE
    beside = client.acquire("ASR", memory=GIB, shared=True)
    await beside.waits_for("GPU_BUSY")
    loaded.touch()
    await beside.granted()
    shared = await lease_of(client, "LLM")
    assert (shared.lease_id, shared.sharing) == (lease.lease_id, lease_pb2.SHARING_SHARED)
    assert shared.gpus[0].committed_bytes == 6 * GIB
    started.terminate()
    code, said = Cli.end_of(started)
    assert code == 128 + signal.SIGTERM
    assert "the GPU is shared now (6.0 GiB)" in said


async def test_a_model_of_unknown_size_shares_what_was_seen_of_it(
    arbiterd: Start, connect: Connect, shell: Shell, tmp_path: Path
):
    arbiter = arbiterd("sampler.interval=20ms")
    client = connect(arbiter)
    port, loaded = free_port(), tmp_path / "loaded"
    server = f"gpu-arbiter sim-job --memory 4GiB --time 10m & {sys.executable} -c '{SERVER}' {port} {loaded}"
    url = f"http://127.0.0.1:{port}/"
    shell(arbiter).start("run", "--task", "LLM", "--until-ready", url, "--", "sh", "-c", server)

    async def in_use() -> bool:
        return bool((await client.gpu()).sample.memory_used_bytes == 4 * GIB)

    await eventually(in_use, "the model to be loaded")
    loaded.touch()

    async def shared() -> bool:
        return (await lease_of(client, "LLM")).sharing == lease_pb2.SHARING_SHARED

    await eventually(shared, "the GPU to be shared")
    assert 4 * GIB <= (await lease_of(client, "LLM")).gpus[0].committed_bytes < 5 * GIB


def test_a_command_that_ends_before_it_is_ready_is_passed_on(arbiter: Arbiterd, shell: Shell):
    url = f"http://127.0.0.1:{free_port()}/"
    assert shell(arbiter)("run", "--until-ready", url, "--", "sh", "-c", "exit 3").returncode == 3


def test_a_command_that_is_not_ready_in_time_is_ended(arbiter: Arbiterd, shell: Shell):
    url = f"http://127.0.0.1:{free_port()}/"
    done = shell(arbiter)("run", "--until-ready", url, "--ready-timeout", "100ms", "--", "sleep", "600")
    assert done.returncode == 125
    assert "not ready after 0s (no answer: [Errno 111] Connection refused); ending the command [NOT_READY]" in done.stderr


def test_a_server_that_is_there_already_is_not_taken_for_ours(arbiter: Arbiterd, shell: Shell, tmp_path: Path):
    port, loaded, ran = free_port(), tmp_path / "loaded", tmp_path / "ran"
    loaded.touch()
    with subprocess.Popen([sys.executable, "-c", SERVER, str(port), str(loaded)]) as server:
        until(lambda: _accepts(port))
        done = shell(arbiter)("run", "--until-ready", f"http://127.0.0.1:{port}/", "--", "touch", str(ran))
        server.kill()
    assert done.returncode == 125
    assert "another server is there" in done.stderr
    assert not ran.exists()


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# -- yield requests --


async def test_a_command_is_told_to_yield_by_the_signal_it_asked_for(
    arbiterd: Start, connect: Connect, shell: Shell, tmp_path: Path
):
    arbiter = arbiterd()
    client = connect(arbiter)
    run = shell(arbiter)
    script = 'trap "echo saved >\\"$0\\"; exit 0" USR1; echo up >"$1"; while :; do sleep 0.02; done'
    saved, up = tmp_path / "saved", tmp_path / "up"
    started = run.start("run", "--task", "TRAIN", "--on-yield", "USR1", "--", "sh", "-c", script, str(saved), str(up))
    written(up)
    lease = await lease_of(client, "TRAIN")
    assert run("revoke", lease.lease_id, "--grace", "60s").returncode == 0
    code, said = Cli.end_of(started)
    assert (code, saved.read_text()) == (0, "saved\n")
    assert "the arbiter asks for the GPU (OPERATOR" in said
    assert "the command gets SIGUSR1" in said
    assert (await client.happens("ENDED", lease.lease_id)).detail.startswith("YIELDED")


async def test_by_default_a_yield_request_is_only_told(arbiterd: Start, connect: Connect, shell: Shell, tmp_path: Path):
    arbiter = arbiterd()
    client = connect(arbiter)
    run = shell(arbiter)
    script = 'echo up >"$0"; while [ ! -e "$1" ]; do sleep 0.02; done; exit 5'
    up, go = tmp_path / "up", tmp_path / "go"
    started = run.start("run", "--task", "TRAIN", "--", "sh", "-c", script, str(up), str(go))
    written(up)
    lease = await lease_of(client, "TRAIN")
    assert run("revoke", lease.lease_id, "--grace", "60s").returncode == 0
    assert started.stderr is not None
    assert "the arbiter asks for the GPU" in started.stderr.readline()
    go.touch()
    assert Cli.end_of(started)[0] == 5


# -- the arbiter goes and comes --


async def test_a_command_outlives_a_restart_of_the_arbiter(
    launch: Callable[..., Any], connect: Connect, shell: Shell, tmp_path: Path
):
    arbiter = launch(f"journal.path={tmp_path / 'journal'}").wait_until_ready()
    run = shell(arbiter)
    go = tmp_path / "go"
    script = 'echo up >"$0"; while [ ! -e "$1" ]; do sleep 0.02; done; exit 5'
    started = run.start("run", "--task", "TRAIN", "--", "sh", "-c", script, str(tmp_path / "up"), str(go))
    written(tmp_path / "up")
    before = await lease_of(connect(arbiter), "TRAIN")
    arbiter.signal(signal.SIGKILL)
    arbiter.wait()
    again = launch(f"journal.path={tmp_path / 'journal'}", f"listen.grpc={arbiter.grpc}").wait_until_ready()
    client = connect(again)

    async def back() -> bool:
        return (await lease_of(client, "TRAIN")).state == lease_pb2.LEASE_STATE_HELD

    await eventually(back, "the run to be back")
    assert (await lease_of(client, "TRAIN")).lease_id == before.lease_id
    go.touch()
    assert Cli.end_of(started)[0] == 5
