"""Simulated memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.polling import until
from gpuarbiter import sim
from gpuarbiter.sim import SimulatedMemory, SimulatedOutOfMemory

GIB = 2**30
A, B = "GPU-a", "GPU-b"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two simulated GPUs of 4 GiB."""
    monkeypatch.setenv("GPU_ARBITER_SIM_DIR", str(tmp_path))
    for index, uuid in enumerate((A, B)):
        (tmp_path / uuid).mkdir()
        facts = {"total_bytes": 4 * GIB, "uuid": uuid, "index": index}
        (tmp_path / uuid / "gpu.json").write_text(json.dumps(facts))
    return tmp_path


def job(root: Path, uuid: str) -> dict[str, object]:
    facts: dict[str, object] = json.loads((root / uuid / f"{os.getpid()}.json").read_text())
    return facts


def test_memory_is_held_and_given_back(root: Path):
    (first, second) = sim.gpus()
    with SimulatedMemory("1GiB", A, utilization_ratio=0.5) as held:
        assert held.gpus == [first]
        facts = job(root, A)
        assert facts["pid"] == os.getpid()
        assert facts["memory_bytes"] == GIB
        assert facts["utilization_ratio"] == 0.5
        assert sim.used_bytes(first) == GIB
        assert sim.used_bytes(second) == 0
    assert sim.used_bytes(first) == 0
    assert sorted(path.name for path in (root / A).iterdir()) == ["gpu.json", "lock"]


def test_what_one_process_holds_adds_up(root: Path):
    with SimulatedMemory("1GiB", A, utilization_ratio=0.7):
        with SimulatedMemory("2GiB", [A, B], utilization_ratio=0.7):
            assert job(root, A)["memory_bytes"] == 3 * GIB
            assert job(root, A)["utilization_ratio"] == 1.0
            assert job(root, B)["memory_bytes"] == 2 * GIB
        assert job(root, A)["memory_bytes"] == GIB


def test_nobody_gets_more_than_there_is(root: Path):
    with SimulatedMemory("3GiB", A):
        with pytest.raises(SimulatedOutOfMemory, match=r"2\.0 GiB asked, 1\.0 GiB free of 4\.0 GiB"):
            SimulatedMemory("2GiB", [B, A]).__enter__()
        assert job(root, A)["memory_bytes"] == 3 * GIB
        assert not (root / B / f"{os.getpid()}.json").exists(), "what was taken first is given back"


HOLD = """
import sys
from gpuarbiter.sim import SimulatedMemory
SimulatedMemory("3GiB", "GPU-a").__enter__()
print("held", flush=True)
sys.stdin.read()
"""


def test_the_living_count_and_the_dead_do_not(root: Path):
    other = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdin is not None
    try:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(SimulatedOutOfMemory):
            SimulatedMemory("2GiB", A).__enter__()
    finally:
        other.kill()
        other.wait()
        other.stdin.close()
        other.stdout.close()
    assert (root / A / f"{other.pid}.json").exists(), "it had no time to clean up"
    with SimulatedMemory("2GiB", A):
        assert job(root, A)["memory_bytes"] == 2 * GIB


def test_a_pid_that_was_used_again_holds_nothing(root: Path):
    stranger = {"pid": os.getppid(), "start_ticks": 1, "memory_bytes": 4 * GIB, "utilization_ratio": 1.0}
    (root / A / f"{os.getppid()}.json").write_text(json.dumps(stranger))
    assert sim.used_bytes(sim.gpus()[0]) == 0
    (root / A / f"{os.getppid()}.json").write_text(json.dumps(stranger | {"start_ticks": 0}))
    assert sim.used_bytes(sim.gpus()[0]) == 4 * GIB


def test_without_proc_a_signal_tells_who_lives(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Path, "exists", lambda _self: False)
    assert sim._lives(os.getpid(), 5)
    assert not sim._lives(2**31 - 2, 5)

    def another_users(_pid: int, _signal: int):
        raise PermissionError

    monkeypatch.setattr(os, "kill", another_users)
    assert sim._lives(1, 5)


def test_files_that_are_no_jobs_are_passed_over(root: Path):
    (root / A / "12345.json").write_text("{half a fi")
    assert sim.used_bytes(sim.gpus()[0]) == 0


def test_the_devices_are_those_that_are_visible(root: Path, monkeypatch: pytest.MonkeyPatch):
    def seen(devices: str | None) -> list[str]:
        return [gpu.uuid for gpu in sim.visible(devices)]

    assert seen(None) == [A, B]
    assert seen("") == []
    assert seen("1, GPU-a") == [B, A]
    with pytest.raises(ValueError, match=f"no simulated GPU 'GPU-c' under {root}; there are: GPU-a, GPU-b"):
        seen("GPU-c")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", B)
    assert [gpu.uuid for gpu in SimulatedMemory(1).gpus] == [B]
    with pytest.raises(ValueError, match="there are: none"):
        sim.visible("0", root / "nothing")


def test_a_utilization_is_a_ratio(root: Path):
    assert sim.gpus(root)
    with pytest.raises(ValueError, match="0 to 1"):
        SimulatedMemory(1, A, utilization_ratio=1.5)


def test_the_root_is_told_or_made_of_the_user(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GPU_ARBITER_SIM_DIR", "/told")
    assert sim.root() == Path("/told")
    monkeypatch.delenv("GPU_ARBITER_SIM_DIR")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/5")
    assert sim.root() == Path(f"/run/user/5/gpu-arbiter-sim-{os.getuid()}")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert sim.root() == Path(f"/tmp/gpu-arbiter-sim-{os.getuid()}")


def test_without_file_locks_it_still_works(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with SimulatedMemory("1GiB", A):
        assert job(root, A)["memory_bytes"] == GIB


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_job_that_is_dead_but_not_reaped_holds_nothing(root: Path):
    (first, _) = sim.gpus()
    child = subprocess.Popen([sys.executable, "-c", ""])
    until(lambda: Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z", "the child to die")
    ticks = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19])
    facts = {"pid": child.pid, "start_ticks": ticks, "memory_bytes": GIB, "utilization_ratio": 0.0}
    (root / A / f"{child.pid}.json").write_text(json.dumps(facts))
    assert sim.used_bytes(first) == 0
    child.wait()
