"""`gpu-arbiter run` on a real arbiter: what outlives what, and yield requests."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.harness.cli import Cli
from e2e.harness.client import Client
from e2e.harness.commands import STUBBORN, lease_of, lives, members, parent_of, written
from e2e.harness.restarting import Restarting
from e2e.harness.waiting import eventually
from fakes.nvml import FakeNvml
from fakes.polling import until
from gpuarbiter._guard import family
from gpuarbiter.v1 import lease_pb2
from support.messages import GIB
from support.process import Arbiterd, environment

Start = Callable[..., Arbiterd]
Connect = Callable[[Arbiterd], Client]
Shell = Callable[[Arbiterd], Cli]

FAST = ("sampler.interval=100ms", "sampler.fast_interval=20ms")


async def test_orphans_are_ended_and_their_memory_is_free_before_the_lease_ends(
    arbiterd: Start, connect: Connect, shell: Shell, tmp_path: Path
):
    fake = FakeNvml(tmp_path, reap=True)
    arbiter = arbiterd("gpus=auto", *FAST, more=fake.env)
    client = connect(arbiter)
    # Two orphans: one in the command's group, and a daemon that left it.
    for name in ("group", "daemon"):
        (tmp_path / name).mkdir()
    program = tmp_path / "stubborn.py"
    program.write_text(STUBBORN)
    script = """
        "$0" "$1" "$2/group" & setsid "$0" "$1" "$2/daemon" &
        while [ ! -s "$2/daemon/pid" ] || [ ! -s "$2/group/pid" ]; do sleep 0.02; done
    """
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


async def test_a_wrapper_that_is_killed_while_it_waits_leaves_nothing(arbiterd: Start, connect: Connect, shell: Shell):
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
        return [process.group for process in family.processes() or [] if process.parent == lease.holder.pid]

    until(children, "the command to begin")
    (group,) = children()
    os.kill(lease.holder.pid, signal.SIGKILL)
    code, said = Cli.end_of(started)
    assert (code, said) == (
        125,
        "gpu-arbiter: error: the guard process is gone, and the lease with it; ending the command\n",
    )
    assert not members(group)
    assert (await client.happens("ENDED", lease.lease_id)).detail.startswith("HOLDER_DIED")


def test_two_runs_on_two_gpus_run_side_by_side(arbiterd: Start, shell: Shell, tmp_path: Path):
    arbiter = arbiterd("gpus=sim:2x24GiB")
    run = shell(arbiter)
    # Each waits for the other: they end only if both run at the same time.
    script = 'echo "$CUDA_VISIBLE_DEVICES" >"$0/$1"; while [ ! -s "$0/$2" ]; do sleep 0.02; done'
    started = [run.start("run", "--", "sh", "-c", script, str(tmp_path), *names) for names in (("a", "b"), ("b", "a"))]
    assert [Cli.end_of(each)[0] for each in started] == [0, 0]
    devices = {(tmp_path / name).read_text().strip() for name in ("a", "b")}
    assert len(devices) == 2


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


async def test_a_command_outlives_a_restart_of_the_arbiter(folder: Path, tmp_path: Path):
    arbiter = Restarting(folder)
    await arbiter.start()
    run = Cli(environment(folder, GPU_ARBITER_ADDRESS=arbiter.grpc))
    client = Client(arbiter.grpc)
    up, go = tmp_path / "up", tmp_path / "go"
    script = 'echo up >"$0"; while [ ! -e "$1" ]; do sleep 0.02; done; exit 5'
    started = run.start("run", "--task", "TRAIN", "--", "sh", "-c", script, str(up), str(go))
    try:
        written(up)
        before = await lease_of(client, "TRAIN")
        await arbiter.restart()

        async def held() -> bool:
            return (await lease_of(client, "TRAIN")).state == lease_pb2.LEASE_STATE_HELD

        await eventually(held, "the run to be back")
        assert (await lease_of(client, "TRAIN")).lease_id == before.lease_id
        go.touch()
        assert Cli.end_of(started)[0] == 5
    finally:
        run.close()
        await client.close()
        arbiter.stop()
