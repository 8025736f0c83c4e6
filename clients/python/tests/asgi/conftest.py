"""The client that the middleware uses."""

from collections.abc import AsyncIterator

import pytest

from fakes.scripted_arbiter import ScriptedArbiter
from gpuarbiter import AsyncArbiter


@pytest.fixture
async def arbiter(scripted: ScriptedArbiter) -> AsyncIterator[AsyncArbiter]:
    """An asynchronous client."""
    async with AsyncArbiter(scripted.address) as client:
        yield client
