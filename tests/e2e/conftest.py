"""A real arbiter for each test that asks for one, and clients for it."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from e2e.harness.client import Client
from e2e.harness.holders import Holder
from support.process import ISOLATED, Arbiterd, environment

# So that tests end at once; the ones about stopping say otherwise.
_SETTINGS = ("shutdown_grace=0s", "node=test-node")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: a Unix socket's path has at most 107 bytes, and pytest's folders are long."""
    made = Path(tempfile.mkdtemp(prefix="gpu-arbiter-e2e-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def launch(folder: Path) -> Iterator[Callable[..., Arbiterd]]:
    """Starts arbiters without waiting for them: `launch("gpus=auto", more=fake.env)`."""
    running: list[Arbiterd] = []

    def start(*settings: str, more: Mapping[str, str] | None = None) -> Arbiterd:
        flags = [part for setting in (*_SETTINGS, *settings) for part in ("--set", setting)]
        env = environment(folder, **dict(more or {}))
        running.append(Arbiterd("serve", *ISOLATED, *flags, folder=folder, env=env))
        return running[-1]

    yield start
    for each in running:
        each.stop()


@pytest.fixture
def arbiterd(launch: Callable[..., Arbiterd]) -> Iterator[Callable[..., Arbiterd]]:
    """Starts arbiters that answer: `arbiterd("gpus=sim:2x24GiB")`. Each must end well, without a traceback."""
    running: list[Arbiterd] = []

    def start(*settings: str, **options: Any) -> Arbiterd:
        running.append(launch(*settings, **options).wait_until_ready())
        return running[-1]

    yield start
    for each in running:
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
def holder() -> Iterator[Callable[..., Holder]]:
    """Makes holders that are processes: `holder(arbiter, "pid", memory=6 * GIB)`."""
    made: list[Holder] = []

    def start(arbiter: Arbiterd, how: str = "pid", **request: Any) -> Holder:
        made.append(Holder(arbiter.grpc, how, **request))
        return made[-1]

    yield start
    for each in made:
        each.close()
