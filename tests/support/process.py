"""gpu-arbiterd as a process of its own, on free ports and in folders of its own."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fakes.polling import until

PATIENCE_SECONDS = 30.0
_READY = re.compile(r"gpu-arbiterd is ready: (.*)")


def environment(folder: Path, **extra: str) -> dict[str, str]:
    """The environment of an arbiter or client that shares nothing with any other."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GPU_ARBITER_")}
    # systemd's variable would come before ours.
    kept.pop("STATE_DIRECTORY", None)
    own = {
        "XDG_RUNTIME_DIR": str(folder),
        "XDG_STATE_HOME": str(folder / "state"),
        "GPU_ARBITER_SIM_DIR": str(folder / "sim"),
    }
    return kept | own | extra


class Arbiterd:
    """A running gpu-arbiterd. Its output is read all the time and kept in `lines`."""

    def __init__(self, *arguments: str, folder: Path, env: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "gpuarbiter_server.cli", *arguments]
        self._folder = folder
        self.process = subprocess.Popen(
            command,
            env=dict(env) if env is not None else environment(folder),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._news: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.grpc = ""
        self.socket = ""
        self.http = ""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def admin_token(self) -> str:
        """What it takes changes with over HTTP, where nothing is configured about that."""
        return (self._folder / "state" / "gpu-arbiter" / "admin-token").read_text().strip()

    @property
    def output(self) -> str:
        """All that it has said so far, on both streams."""
        return "".join(self.lines)

    def wait_until_ready(self) -> "Arbiterd":
        """Returns when it has said where it listens, and answers there."""
        said = self.wait_for(_READY)
        for part in said[1].split(", "):
            if part.startswith("unix:"):
                self.socket = part
            else:
                kind, _, address = part.partition(" ")
                setattr(self, kind, address)
        with grpc.insecure_channel(self.grpc or self.socket) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_SECONDS, wait_for_ready=True)
        return self

    def wait_for(self, pattern: str | re.Pattern[str]) -> re.Match[str]:
        """The first line from here on that the pattern is found in; fails when the process ends without it."""
        while True:
            line = self._news.get(timeout=PATIENCE_SECONDS)
            if line is None:
                raise AssertionError(f"it ended with {self.process.wait()} before it said {pattern!r}:\n{self.output}")
            match = re.search(pattern, line)
            if match:
                return match

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to it alone."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit code, once it has ended and everything it said is in `lines`."""
        code = self.process.wait(PATIENCE_SECONDS)
        self._reader.join(PATIENCE_SECONDS)
        return code

    def stop(self) -> int:
        """Ends it, without mercy if need be."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            self.signal(signal.SIGTERM)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.wait()
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            self._news.put(line)
        self._news.put(None)


ISOLATED = ("--set", "listen.grpc=127.0.0.1:0", "--set", "listen.http=127.0.0.1:0", "--set", "gpus=sim:1x24GiB")


@contextmanager
def running(folder: Path, *settings: str, env: Mapping[str, str] | None = None) -> Iterator[Arbiterd]:
    """An arbiter with simulated GPUs that answers; `settings` as --set takes them, the later wins."""
    arguments = ["serve", *ISOLATED]
    for setting in settings:
        arguments += ["--set", setting]
    arbiter = Arbiterd(*arguments, folder=folder, env=env)
    try:
        yield arbiter.wait_until_ready()
    finally:
        arbiter.stop()


def ended(process: Arbiterd) -> bool:
    """Whether it is over."""
    return process.process.poll() is not None


def wait_until_ended(process: Arbiterd) -> int:
    """Its exit code; fails when it goes on."""
    until(lambda: ended(process), "for it to end")
    return process.wait()
