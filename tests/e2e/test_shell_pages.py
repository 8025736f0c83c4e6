"""The pages about the shell, block by block as they stand, with stand-ins for what they call."""

import json
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.harness.cli import Cli
from e2e.harness.client import Client
from e2e.harness.commands import free_port, lease_of
from e2e.harness.waiting import PATIENCE_SECONDS
from gpuarbiter.cli import parser
from gpuarbiter.v1 import lease_pb2
from support.process import Arbiterd, environment

ROOT = Path(__file__).parents[2]
Start = Callable[..., Arbiterd]
Connect = Callable[[Arbiterd], Client]
# Takes memory as a job does, and says where it ran and with what. Asked to resume, it gives way once.
JOB = """
import os, pathlib, signal, sys, time
from gpuarbiter.sim import SimulatedMemory
with SimulatedMemory("2GiB") as memory, open("calls.txt", "a") as calls:
    name, lease = pathlib.Path(sys.argv[0]).stem, os.environ["GPU_ARBITER_LEASE_ID"]
    print(name, *sys.argv[1:], len(memory.gpus), lease, file=calls)
given_way = pathlib.Path("given-way")
if "--resume" in sys.argv and not given_way.exists():
    given_way.touch()
    os.kill(os.getpid(), signal.SIGTERM)
"""


def blocks(page: str, language: str = "sh") -> list[str]:
    text = (ROOT / "docs" / page).read_text()
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return found


SERVING = blocks("serving-models.md")
BATCH = blocks("batch.md")
# Those that serve until they are ended.
SERVERS = [block for block in SERVING if " &\n" not in block]


class Desk:
    """A folder in which the blocks find what they call, and a port of their own."""

    def __init__(self, folder: Path, arbiter: Arbiterd, tmp_path: Path) -> None:
        self.folder = tmp_path
        self._programs = tmp_path / "bin"
        self._programs.mkdir()
        (tmp_path / "clients").symlink_to(ROOT / "clients")
        server = ROOT / "clients/python/examples/model_server.py"
        for name in ("vllm", "llama-server"):
            self._add(name, f'exec python {server} "$@"')
        self._add("torchrun", 'shift 2; exec python "$@"')
        # docker run --rm --gpus '"device=UUID,UUID"' IMAGE COMMAND…
        self._add("docker", 'devices=${4#*=}; export CUDA_VISIBLE_DEVICES="${devices%?}"; shift 5; exec "$@"')
        for name in ("train", "prepare", "evaluate"):
            (tmp_path / f"{name}.py").write_text(JOB)
        env = environment(folder, GPU_ARBITER_ADDRESS=arbiter.grpc, PORT=str(free_port()), MODEL_LOAD_SECONDS="0.3")
        self.cli = Cli(env | {"PATH": f"{self._programs}:{env['PATH']}"})

    def _add(self, name: str, script: str) -> None:
        (self._programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (self._programs / name).chmod(0o755)

    def start(self, block: str) -> "subprocess.Popen[str]":
        return self.cli.start_other("bash", "-e", "-c", block, cwd=self.folder)

    def run(self, block: str) -> tuple[int, str]:
        started = self.start(block)
        said, _ = started.communicate(timeout=4 * PATIENCE_SECONDS)
        return started.returncode, said

    def calls(self) -> list[str]:
        """What ran, with its arguments and the number of its GPUs; and by which lease."""
        path = self.folder / "calls.txt"
        found = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return found


@pytest.fixture
def desk(folder: Path, tmp_path: Path) -> Iterator[Callable[[Arbiterd], Desk]]:
    made: list[Desk] = []

    def at(arbiter: Arbiterd) -> Desk:
        made.append(Desk(folder, arbiter, tmp_path))
        return made[-1]

    yield at
    for each in made:
        each.cli.close()


@pytest.mark.parametrize("block", SERVERS, ids=["vLLM", "llama-server", "stand-in"])
async def test_a_server_is_alone_until_it_serves(
    arbiterd: Start, connect: Connect, desk: Callable[[Arbiterd], Desk], block: str
):
    arbiter = arbiterd()
    client = connect(arbiter)
    started = desk(arbiter).start(block)
    assert (await lease_of(client, "RUN")).sharing == lease_pb2.SHARING_EXCLUSIVE
    assert started.stdout is not None
    while "the GPU is shared now" not in started.stdout.readline():
        assert started.poll() is None
    assert (await lease_of(client, "RUN")).sharing == lease_pb2.SHARING_SHARED
    started.terminate()
    started.communicate(timeout=2 * PATIENCE_SECONDS)
    assert started.returncode == 143
    assert not (await client.snapshot()).leases


@pytest.mark.tool("curl")
def test_scripts_around_servers(arbiterd: Start, desk: Callable[[Arbiterd], Desk]):
    at = desk(arbiterd())
    script, two = [block for block in SERVING if block not in SERVERS]
    code, said = at.run(script)
    assert code == 0, said
    assert said.count("ready\n") == 2, "health, and the model"
    code, said = at.run(two)
    assert code == 0, said
    assert said.count("SHARED") == 2, said
    assert json.loads(at.cli("snapshot", "--json").stdout)["leases"] == []


def test_batch_jobs(arbiterd: Start, desk: Callable[[Arbiterd], Desk]):
    at = desk(arbiterd("gpus=sim:2x24GiB"))
    ran = []
    for block in BATCH:
        code, said = at.run(block)
        assert code == 0, said
        ran.append(at.calls())
    leases = [Counter(call.split()[-1] for call in calls) for calls in ran]
    what = [sorted(call.rsplit(" ", 1)[0] for call in calls) for calls in ran]
    assert what == [
        ["train --epochs 3 1"],
        ["train 1"],
        ["evaluate 1", "prepare 1", "train 1"],
        ["train 2"],
        ["evaluate 1", "evaluate 1"],
        [f"train --seed {seed} 1" for seed in (1, 2, 3, 4)],
        ["train --resume checkpoint.pt 1"] * 2,
        ["train 2"],
    ]
    assert [len(held) for held in leases] == [1, 1, 1, 1, 1, 4, 2, 1]
    assert sorted(path.name for path in at.folder.glob("job-*.log")) == [f"job-{n}.log" for n in (1, 2, 3, 4)]


def test_what_a_script_does_when_there_is_no_gpu(arbiterd: Start, desk: Callable[[Arbiterd], Desk]):
    at = desk(arbiterd())
    assert at.cli("drain", "--all").returncode == 0
    code, said = at.run(BATCH[1].replace("--wait 10m", "--wait 0"))
    assert (code, said.splitlines()[-1]) == (75, "no GPU within ten minutes; later, then")


@pytest.mark.parametrize(
    "line",
    [
        re.findall(r"^ExecStart=(.*)$", blocks("serving-models.md", "ini")[0], re.MULTILINE)[0],
        blocks("batch.md", "crontab")[0].splitlines()[1].split(None, 5)[5],
    ],
    ids=["systemd", "cron"],
)
def test_lines_of_other_files_are_understood(line: str):
    assert parser().parse_args(shlex.split(line)[1:]).argv[0] == "--"
