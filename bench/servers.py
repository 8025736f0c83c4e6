"""Starts the servers under measurement, and reads what they cost from the operating system."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Server:
    """A server process and where it listens."""

    name: str
    pid: int
    target: str

    def cpu_seconds(self) -> float:
        """CPU time of all its threads so far, from the scheduler's own nanosecond accounting."""
        total = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def resident_bytes(self) -> int:
        """Memory that it occupies."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def floor() -> Iterator[Server]:
    """The bare server."""
    with tempfile.TemporaryDirectory() as folder:
        socket = f"{folder}/floor.sock"
        with _running([sys.executable, "-m", "bench.floor", socket], {}) as process:
            yield Server("floor", process.pid, f"unix:{socket}")


@contextlib.contextmanager
def arbiter(*settings: str) -> Iterator[Server]:
    """The arbiter with one configured exclusive GPU and a durable journal, unless the settings say otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        socket = f"{folder}/arbiter.sock"
        said = [
            "gpus=[{key: 'gpu:0', memory: 24GiB}]",
            "listen={grpc: off, http: '127.0.0.1:0'}",
            f"listen.socket={socket}",
            f"journal.path={folder}/state",
            "log_level=warning",
            *settings,
        ]
        flags = [part for setting in said for part in ("--set", setting)]
        command = [sys.executable, "-m", "gpuarbiter_server.cli", "serve", *flags]
        with _running(command, {"XDG_RUNTIME_DIR": folder}) as process:
            yield Server("arbiter", process.pid, f"unix:{socket}")


@contextlib.contextmanager
def _running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process from its line on stdout that it is ready until the end of the block."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment)
    try:
        if not (process.stdout and process.stdout.readline()):
            raise RuntimeError(f"{' '.join(command)} did not start")
        yield process
    finally:
        process.terminate()
        process.wait(timeout=20)
