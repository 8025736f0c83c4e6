"""A scripted arbiter for each test, and an environment that says nothing of another one."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from fakes.scripted_arbiter import ScriptedArbiter
from support.interruptible import interruptible

# A machine that is busy with something else is no reason to fail.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    with interruptible():
        yield


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "GPU_ARBITER_ADDRESS",
        "GPU_ARBITER_TOKEN",
        "GPU_ARBITER_ON_UNAVAILABLE",
        "CUDA_VISIBLE_DEVICES",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def scripted() -> Iterator[ScriptedArbiter]:
    """A running scripted arbiter."""
    arbiter = ScriptedArbiter()
    arbiter.start()
    yield arbiter
    arbiter.stop()
