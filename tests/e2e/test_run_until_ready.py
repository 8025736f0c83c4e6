"""`gpu-arbiter run --until-ready`, on a real arbiter."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from e2e.harness.cli import Cli
from e2e.harness.client import Client
from e2e.harness.commands import SERVER, accepts, free_port, lease_of
from e2e.harness.waiting import eventually
from fakes.polling import until
from gpuarbiter.v1 import lease_pb2
from support.messages import GIB
from support.process import Arbiterd

Start = Callable[..., Arbiterd]
Connect = Callable[[Arbiterd], Client]
Shell = Callable[[Arbiterd], Cli]

FAST = ("sampler.interval=100ms", "sampler.fast_interval=20ms")


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
    assert started.stderr is not None
    assert "the GPU is shared now (6.0 GiB)" in started.stderr.readline()
    started.terminate()
    assert Cli.end_of(started)[0] == 128 + signal.SIGTERM


async def test_a_model_of_unknown_size_shares_what_was_seen_of_it(
    arbiterd: Start, connect: Connect, shell: Shell, tmp_path: Path
):
    arbiter = arbiterd(*FAST)
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
    assert done.returncode == 122
    assert (
        "not ready after 0s (no answer: [Errno 111] Connection refused); ending the command [NOT_READY]" in done.stderr
    )


def test_a_server_that_is_there_already_is_not_taken_for_ours(arbiter: Arbiterd, shell: Shell, tmp_path: Path):
    port, loaded, ran = free_port(), tmp_path / "loaded", tmp_path / "ran"
    loaded.touch()
    with subprocess.Popen([sys.executable, "-c", SERVER, str(port), str(loaded)]) as server:
        until(lambda: accepts(port))
        done = shell(arbiter)("run", "--until-ready", f"http://127.0.0.1:{port}/", "--", "touch", str(ran))
        server.kill()
    assert done.returncode == 122
    assert "another server is there" in done.stderr
    assert not ran.exists()
