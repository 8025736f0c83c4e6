"""A third language: the worker of docs/go.md, as it stands there, against the real arbiter."""

import queue
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from conformance import golang
from conformance.stage import Stage, Stages
from fakes.polling import until
from gpuarbiter.v1 import admin_pb2
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb

# The first time, everything is compiled.
pytestmark = [
    pytest.mark.tool("go"),
    pytest.mark.tool("protoc-gen-go"),
    pytest.mark.tool("protoc-gen-go-grpc"),
    pytest.mark.timeout(900),
]

PATIENCE_SECONDS = 30.0
GRANTED = r"granted: GPU-\S+ with token (\d+)"


class Worker:
    """The program as a process; its lines are kept."""

    def __init__(self, program: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def says(self, pattern: str) -> re.Match[str]:
        """The next line, which has to look so."""
        line = self._lines.get(timeout=PATIENCE_SECONDS)
        match = re.fullmatch(pattern, line.strip())
        assert match is not None, f"expected {pattern!r}, got {line!r}"
        return match

    def says_at_last(self, pattern: str) -> re.Match[str]:
        """The same after whatever it says of waiting."""
        while (match := self.says(rf"waiting: .*|.* asking again: .*|({pattern})"))[1] is None:
            pass
        return match

    def ends(self) -> int:
        """Its exit code."""
        return self.process.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)
        self._reader.join(PATIENCE_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)


@pytest.fixture(scope="module")
def _built() -> list[Path | str]:
    """The program, or why there is none; filled by the first test."""
    return []


@pytest.fixture
def start(
    _built: list[Path | str], tool: Callable[[str], str], lacking: Callable[[str, str], NoReturn]
) -> Iterator[Callable[..., Worker]]:
    """Starts workers."""
    if not _built:
        try:
            _built.append(golang.build(Path(tool("protoc-gen-go")).parent))
        except FileNotFoundError as error:
            _built.append(str(error))
    if isinstance(_built[0], str):
        lacking("go packages", _built[0])
    made: list[Worker] = []

    def worker(stage: Stage, *arguments: str) -> Worker:
        assert isinstance(_built[0], Path)
        made.append(Worker(_built[0], "-address", stage.address, *arguments))
        return made[-1]

    yield worker
    for each in made:
        each.close()


def events(stage: Stage, kind: str, request_id: str) -> int:
    """How often it happened to a request."""
    wanted = admin_pb2.EventType.Value(f"EVENT_TYPE_{kind}")
    with stage.admin() as admin:
        told: list[Any] = list(admin.ListEvents(admin_pb2.ListEventsRequest()))
    return sum(event.type == wanted and event.request_id == request_id for event in told)


def test_it_waits_renews_and_releases(stages: Stages, start: Callable[..., Worker]):
    with stages.lend({}, restarts=False) as stage:
        first = start(stage, "-request-id", "go-first", "-pieces", "100000")
        token = int(first.says_at_last(GRANTED)[2])
        second = start(stage, "-pieces", "1")
        second.says("waiting: position 1, WAIT_REASON_GPU_BUSY")
        until(lambda: events(stage, "RENEWED", "go-first") > 1, "for renewals")
        with stage.arbiter() as arbiter:
            assert arbiter.CheckFence(pb.CheckFenceRequest(gpu="gpu:0", fencing_token=token)).current
        first.process.terminate()
        first.says("stopped: .*")
        first.says("released: END_REASON_RELEASED")
        assert first.ends() == 0
        assert int(second.says_at_last(GRANTED)[2]) > token
        second.says("released: END_REASON_RELEASED")
        assert second.ends() == 0


def test_it_yields_when_it_is_asked_to(stages: Stages, start: Callable[..., Worker]):
    with stages.lend({}, restarts=False) as stage:
        worker = start(stage, "-pieces", "100000")
        worker.says_at_last("granted: .*")
        with stage.admin() as admin:
            drain = admin_pb2.DrainRequest(all=True)
            drain.grace.FromSeconds(60)
            admin.Drain(drain)
        worker.says("stopped: the arbiter asks for the GPU: YIELD_REASON_DRAINING")
        worker.says("released: END_REASON_YIELDED")
        assert worker.ends() == 0


def test_it_stops_when_the_lease_is_lost(stages: Stages, start: Callable[..., Worker]):
    with stages.lend({}, restarts=False) as stage:
        worker = start(stage, "-pieces", "100000")
        worker.says_at_last("granted: .*")
        with stage.arbiter() as arbiter, stage.admin() as admin:
            (lease,) = next(iter(arbiter.Snapshot(pb.SnapshotRequest()))).snapshot.leases
            admin.Revoke(admin_pb2.RevokeRequest(lease_id=lease.lease_id))
        worker.says("stopped: the lease is lost: END_REASON_OPERATOR")
        worker.says("released: END_REASON_OPERATOR")
        assert worker.ends() == 0


def test_it_says_why_there_is_no_gpu(stages: Stages, start: Callable[..., Worker]):
    with stages.lend({}, restarts=False) as stage:
        holder = start(stage, "-pieces", "100000")
        holder.says_at_last("granted: .*")
        worker = start(stage, "-wait", "200ms")
        worker.says("waiting: position 1, WAIT_REASON_GPU_BUSY")
        worker.says(r".* no GPU: WAIT_TIMEOUT \(.*\)")
        assert worker.ends() == 1


def test_a_restart_of_the_arbiter_is_no_event(stages: Stages, start: Callable[..., Worker]):
    with stages.lend({}, restarts=True) as stage:
        holder = start(stage, "-request-id", "go-holder", "-pieces", "100000")
        holder.says_at_last("granted: .*")
        waiting = start(stage, "-pieces", "1")
        waiting.says("waiting: position 1, WAIT_REASON_GPU_BUSY")
        before = events(stage, "RENEWED", "go-holder")
        stage.kill()
        holder.says(".* the line to the arbiter broke: .*")
        waiting.says(".* asking again: .*")
        stage.start()
        until(lambda: events(stage, "RENEWED", "go-holder") > before + 1, "for a renewal at the new arbiter")
        holder.process.terminate()
        holder.says("stopped: .*")
        holder.says("released: END_REASON_RELEASED")
        waiting.says_at_last("granted: .*")
        waiting.says("released: END_REASON_RELEASED")
        assert waiting.ends() == 0
