"""`gpu-arbiter run` inside `gpu-arbiter run`, on a real arbiter."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from e2e.harness.cli import Cli
from e2e.harness.client import Client
from e2e.harness.commands import STUBBORN, lease_of, lives, written
from fakes.polling import until
from support.process import Arbiterd, environment

Start = Callable[..., Arbiterd]
Connect = Callable[[Arbiterd], Client]
Shell = Callable[[Arbiterd], Cli]


def test_a_run_inside_a_run_joins_its_lease(arbiterd: Start, shell: Shell):
    arbiter = arbiterd("gpus=sim:2x24GiB")
    run = shell(arbiter)
    gpus = [gpu["uuid"] for gpu in json.loads(run("snapshot", "--json").stdout)["gpus"]]
    inner = "echo $CUDA_VISIBLE_DEVICES $GPU_ARBITER_GPU_KEYS $GPU_ARBITER_LEASE_ID"
    options = "--json --gpu gpu:1 --memory 3GiB --on-yield USR1"
    script = f"echo $GPU_ARBITER_LEASE_ID; gpu-arbiter run {options} -- sh -c '{inner}'; echo code $?"
    done = run("run", "--count", "2", "--memory", "4GiB", "--", "sh", "-c", script)
    outer, told, code = done.stdout.splitlines()
    assert (told, code) == (f"{gpus[1]} gpu:1 {outer}", "code 0")
    said = [json.loads(line) for line in done.stderr.splitlines()]
    assert [each["event"] for each in said] == ["progress", "joined", "ignored"]
    assert said[2]["message"] == "--on-yield says nothing here: the lease is the outer run's"
    events = [json.loads(line)["type"] for line in run("events", "--json").stdout.splitlines()]
    assert events.count("EVENT_TYPE_GRANTED") == 1


def test_a_run_inside_a_run_that_would_wait_for_itself_is_refused(arbiter: Arbiterd, shell: Shell):
    refused = ("--memory 5GiB", "--count 2", "--gpu 7", "--new-lease --wait 0")
    script = "".join(f"gpu-arbiter run {more} -- true; echo code $?;" for more in refused)
    done = shell(arbiter)("run", "--memory", "4GiB", "--", "sh", "-c", script)
    assert done.stdout == "code 125\n" * len(refused)
    said = done.stderr.splitlines()
    assert all("asks for more than the lease around it has" in line for line in said[:3])
    assert all("gpu:0 and 4.0 GiB on each): ask for more in the outer run" in line for line in said[:3])
    assert "only once the one around it" in said[3]
    unbounded = shell(arbiter)("run", "--", "sh", "-c", "gpu-arbiter run --memory 5GiB -- echo joined")
    assert unbounded.stdout == "joined\n", "an exclusive lease without a declaration has all of the GPU"


def test_a_run_inside_a_run_gets_a_lease_of_its_own_where_it_asks_for_one(arbiterd: Start, shell: Shell):
    arbiter = arbiterd("gpus=sim:2x24GiB")
    told = "echo $GPU_ARBITER_LEASE_ID $GPU_ARBITER_GPU_KEYS"
    inner = f"gpu-arbiter run --new-lease --memory 5GiB -- sh -c '{told}'"
    done = shell(arbiter)("run", "--memory", "4GiB", "--", "sh", "-c", f"{told}; {inner}")
    outside, inside = (line.split() for line in done.stdout.splitlines())
    assert outside[0] != inside[0]
    assert {outside[1], inside[1]} == {"gpu:0", "gpu:1"}


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
