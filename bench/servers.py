"""Starts the servers under measurement, and reads what they cost from the operating system."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.receiver import receiver, sampled


@dataclass(frozen=True)
class Server:
    """A server process and where it listens."""

    name: str
    pid: int
    target: str
    # Where it answers HTTP, as host:port.
    http: str = ""

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
def floor(*modes: str, loopback: bool = False) -> Iterator[Server]:
    """The bare server, on a Unix socket or a port of loopback."""
    with tempfile.TemporaryDirectory() as folder:
        target = f"127.0.0.1:{free_port()}" if loopback else f"unix:{folder}/floor.sock"
        with running([sys.executable, "-m", "bench.floor", target, *modes]) as (process, _):
            yield Server("floor", process.pid, target)


def free_port() -> int:
    """A port of loopback that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def arbiter(
    *settings: str,
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
    loopback: bool = False,
) -> Iterator[Server]:
    """The arbiter with one configured exclusive GPU and a durable journal, unless the settings say otherwise.

    log: a file for what it logs; None: where ours goes. loopback: it listens on a port, and not on a Unix socket.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/arbiter.sock"
        port = f"127.0.0.1:{free_port()}"
        grpc, target = (f"'{port}'", port) if loopback else ("off", f"unix:{path}")
        said = [
            "gpus=[{key: 'gpu:0', memory: 24GiB}]",
            f"listen={{grpc: {grpc}, http: '127.0.0.1:0'}}",
            f"listen.socket={'off' if loopback else path}",
            f"journal.path={folder}/state",
            "log_level=warning",
            *settings,
        ]
        flags = [part for setting in said for part in ("--set", setting)]
        command = [sys.executable, "-m", "gpuarbiter_server.cli", "serve", *flags]
        with running(command, {"XDG_RUNTIME_DIR": folder, **(environment or {})}, log) as (process, said_ready):
            http = re.search(r"http (\S+?:\d+)", said_ready)
            yield Server("arbiter", process.pid, target, http[1] if http else "")


@contextlib.contextmanager
def as_promised(*settings: str, loopback: bool = False) -> Iterator[Server]:
    """The arbiter as the targets have it: a durable journal, metrics, and one trace of a hundred sent to a receiver."""
    with (
        receiver() as received,
        arbiter(*settings, environment=sampled(received.endpoint, 0.01), loopback=loopback) as server,
    ):
        yield server


@contextlib.contextmanager
def running(
    command: list[str], environment: Mapping[str, str] | None = None, log: Path | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process and its line on stdout that it is ready, from then until the end of the block."""
    with contextlib.ExitStack() as stack:
        stderr = stack.enter_context(log.open("w")) if log else None
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env={**os.environ, **(environment or {})}
        )
        try:
            ready = process.stdout.readline() if process.stdout else ""
            if not ready:
                raise RuntimeError(f"{' '.join(command)} did not start")
            yield process, ready
        finally:
            process.terminate()
            process.wait(timeout=20)
