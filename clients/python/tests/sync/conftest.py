"""The client of the scripted arbiter; by hand, because an asynchronous fixture is declared as a plain one."""

from collections.abc import Iterator

import pytest

from fakes.scripted_arbiter import ScriptedArbiter
from gpuarbiter import Arbiter


@pytest.fixture
def arbiter(scripted: ScriptedArbiter) -> Iterator[Arbiter]:
    """A synchronous client."""
    with Arbiter(scripted.address) as client:
        yield client
