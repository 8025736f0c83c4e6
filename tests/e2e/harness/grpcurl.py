"""grpcurl, with nothing but what the server tells about itself: no .proto file is ever named."""

import json
import queue
import signal
import subprocess
import threading
from typing import Any, TextIO

from e2e.harness.waiting import PATIENCE_SECONDS


class Grpcurl:
    """The tool at `path`, pointed at one address."""

    def __init__(self, path: str, address: str) -> None:
        self._path = path
        self._address = address
        self._running: list[Streaming] = []

    def __call__(self, *arguments: str) -> str:
        """Runs it to its end; what it printed."""
        return self._run(*arguments).stdout

    def call(self, method: str, request: dict[str, Any] | None = None) -> dict[str, Any]:
        """The one answer of a call."""
        return self.answers(method, request)[0]

    def answers(self, method: str, request: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """All answers of a call, to the end of its stream."""
        ended = self._run("-d", json.dumps(request or {}), self._address, _full(method))
        return _objects(ended.stdout)

    def fails(self, method: str, request: dict[str, Any] | None = None) -> str:
        """What it says of a call that fails."""
        ended = self._run("-d", json.dumps(request or {}), self._address, _full(method), expect_failure=True)
        return ended.stderr

    def start(self, method: str, request: dict[str, Any] | None = None) -> "Streaming":
        """Starts a call whose answers come one by one."""
        command = [self._path, "-plaintext", "-d", json.dumps(request or {}), self._address, _full(method)]
        self._running.append(Streaming(command))
        return self._running[-1]

    def close(self) -> None:
        for streaming in self._running:
            streaming.close()

    def _run(self, *arguments: str, expect_failure: bool = False) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            [self._path, "-plaintext", *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert bool(ended.returncode) == expect_failure, ended.stderr or ended.stdout
        return ended


class Streaming:
    """A grpcurl that still runs."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    def next(self, kind: str = "") -> dict[str, Any]:
        """The next answer; with `kind`, what it holds of this kind, which it has to be."""
        answer = self._answers.get(timeout=PATIENCE_SECONDS)
        assert answer is not None, "the stream ended"
        if not kind:
            return answer
        assert kind in answer, answer
        found: dict[str, Any] = answer[kind]
        return found

    def until(self, kind: str) -> dict[str, Any]:
        """The next answer of this kind; Queued ones before it are passed over."""
        while kind not in (answer := self.next()):
            assert "queued" in answer, answer
        found: dict[str, Any] = answer[kind]
        return found

    def ctrl_c(self) -> None:
        """What Ctrl-C does to it."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(PATIENCE_SECONDS)

    def ends(self) -> int:
        """Waits for the end of its stream; its exit code."""
        assert self._answers.get(timeout=PATIENCE_SECONDS) is None
        return self.process.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def _read(self, output: TextIO) -> None:
        lines: list[str] = []
        for line in output:
            lines.append(line)
            # Answers are printed over several lines, and end with a brace in the first column.
            if line.startswith(("}", "{}")):
                self._answers.put(json.loads("".join(lines)))
                lines.clear()
        self._answers.put(None)


def _full(method: str) -> str:
    """GpuArbiter/Acquire with its package."""
    return method if method.startswith("grpc.") else f"gpuarbiter.v1.{method}"


def _objects(text: str) -> list[dict[str, Any]]:
    found, decoder, position = [], json.JSONDecoder(), 0
    while text[position:].strip():
        position += len(text[position:]) - len(text[position:].lstrip())
        value, position = decoder.raw_decode(text, position)
        found.append(value)
    return found
