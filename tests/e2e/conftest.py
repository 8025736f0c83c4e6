"""A real arbiter for each test that asks for one, and clients for it."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest

from e2e.harness.cli import Cli
from e2e.harness.client import Client
from e2e.harness.holders import Holder
from fakes.polling import until
from gpuarbiter.v1 import admin_pb2, admin_pb2_grpc, gpu_arbiter_pb2_grpc
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from support.interruptible import interruptible
from support.process import ISOLATED, Arbiterd, environment, running

# So that tests end at once; the ones about stopping say otherwise.
_SETTINGS = ("shutdown_grace=0s", "node=test-node")


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    with interruptible():
        yield


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: a Unix socket's path has at most 107 bytes, and pytest's folders are long."""
    made = Path(tempfile.mkdtemp(prefix="gpu-arbiter-e2e-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="session")
def _lasting() -> Iterator[Arbiterd]:
    """One arbiter for all tests that need none of their own: a start takes longer than most of them."""
    with tempfile.TemporaryDirectory(prefix="gpu-arbiter-e2e-") as made:
        with running(Path(made), "shutdown_grace=0s", "node=test-node") as arbiter:
            yield arbiter
        assert "Traceback" not in arbiter.output, arbiter.output


@pytest.fixture
def arbiter(_lasting: Arbiterd) -> Arbiterd:
    """A running arbiter with one simulated GPU of 24 GiB, which nobody holds or waits for.

    Other tests use it too: request_ids are to be a test's own, and the audit trail holds more than its events.
    """
    with grpc.insecure_channel(_lasting.grpc) as channel:
        stub: Any = gpu_arbiter_pb2_grpc.GpuArbiterStub(channel)
        admin: Any = admin_pb2_grpc.GpuArbiterAdminStub(channel)

        def idle() -> bool:
            snapshot = next(iter(stub.Snapshot(pb.SnapshotRequest()))).snapshot
            for lease in snapshot.leases:
                admin.Revoke(admin_pb2.RevokeRequest(lease_id=lease.lease_id))
            return not snapshot.leases and not snapshot.queue_length

        admin.Resume(admin_pb2.ResumeRequest(all=True))
        until(idle, "for what the last test left to be over")
    return _lasting


@pytest.fixture
def launch(folder: Path) -> Iterator[Callable[..., Arbiterd]]:
    """Starts arbiters without waiting for them: `launch("gpus=auto", more=fake.env)`."""
    started: list[Arbiterd] = []

    def start(*settings: str, more: Mapping[str, str] | None = None) -> Arbiterd:
        flags = [part for setting in (*_SETTINGS, *settings) for part in ("--set", setting)]
        env = environment(folder, **dict(more or {}))
        started.append(Arbiterd("serve", *ISOLATED, *flags, folder=folder, env=env))
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture
def arbiterd(launch: Callable[..., Arbiterd]) -> Iterator[Callable[..., Arbiterd]]:
    """Starts arbiters that answer: `arbiterd("gpus=sim:2x24GiB")`. Each must end well, without a traceback."""
    started: list[Arbiterd] = []

    def start(*settings: str, **options: Any) -> Arbiterd:
        started.append(launch(*settings, **options).wait_until_ready())
        return started[-1]

    yield start
    for each in started:
        code = each.stop()
        assert code == 0, each.output
        assert "Traceback" not in each.output, each.output


@pytest.fixture
async def connect() -> AsyncIterator[Callable[[Arbiterd], Client]]:
    """Makes clients on the bare contract."""
    made: list[Client] = []

    def client(arbiter: Arbiterd) -> Client:
        made.append(Client(arbiter.grpc))
        return made[-1]

    yield client
    for each in made:
        await each.close()


@pytest.fixture
def shell(folder: Path) -> Iterator[Callable[[Arbiterd], Cli]]:
    """The command gpu-arbiter for an arbiter: `shell(arbiter)("snapshot", "--json")`."""
    made: list[Cli] = []

    def on(arbiter: Arbiterd) -> Cli:
        made.append(Cli(environment(folder, GPU_ARBITER_ADDRESS=arbiter.grpc)))
        return made[-1]

    yield on
    for each in made:
        each.close()


@pytest.fixture
def holder() -> Iterator[Callable[..., Holder]]:
    """Makes holders that are processes: `holder(arbiter, "pid", memory=6 * GIB)`."""
    made: list[Holder] = []

    def start(arbiter: Arbiterd, how: str = "pid", **request: Any) -> Holder:
        made.append(Holder(arbiter.grpc, how, **request))
        return made[-1]

    yield start
    for each in made:
        each.close()
