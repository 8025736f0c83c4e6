"""The client as a package: how large its wheel is, and what importing it costs beside what it stands on."""

import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

_PACKAGE = Path(__file__).parents[1] / "clients/python"
# From the interpreter alone up to all that a program with leases imports.
_STEPS = {
    "nothing": "pass",
    "grpc": "import grpc, google.protobuf.message",
    "package": "import gpuarbiter",
    "stubs": "import gpuarbiter.v1.gpu_arbiter_pb2",
    "client": "from gpuarbiter import Arbiter",
}


def _wheel_bytes() -> int:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
        subprocess.run(command, cwd=_PACKAGE, check=True, capture_output=True)
        return next(Path(folder).glob("*.whl")).stat().st_size


def _cpu_seconds(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-I", "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def rows(*, quick: bool) -> list[tuple[str, ...]]:
    """One row; times are CPU of a new interpreter, less that of one that imports nothing."""
    rounds = [{name: _cpu_seconds(code) for name, code in _STEPS.items()} for _ in range(2 if quick else 15)]
    cost = {
        name: statistics.median(each[name] - each["nothing"] for each in rounds) * 1000
        for name in _STEPS
        if name != "nothing"
    }
    floor = f"grpc and protobuf alone: import CPU {cost['grpc']:.0f} ms"
    ours = (
        f"import gpuarbiter {cost['package']:.1f} ms, its stubs {cost['stubs']:.0f} ms, Arbiter {cost['client']:.0f} ms"
    )
    wheel = f"wheel {_wheel_bytes() / 1024:.0f} KiB"
    return [
        (
            "Client package: wheel KiB, import ms",
            floor,
            f"{wheel}; {ours}",
            f"CPU {cost['client'] / cost['grpc']:.2f} ×",
        )
    ]
