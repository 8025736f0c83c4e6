"""Arbiters for scenarios."""

from collections.abc import Iterator

import pytest

from conformance.stage import Stages


@pytest.fixture(scope="session")
def stages() -> Iterator[Stages]:
    made = Stages()
    yield made
    made.close()
