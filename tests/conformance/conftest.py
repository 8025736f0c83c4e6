"""Arbiters for scenarios."""

from collections.abc import Iterator

import pytest

from conformance.stage import Stages
from support.interruptible import interruptible


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    with interruptible():
        yield


@pytest.fixture(scope="session")
def stages() -> Iterator[Stages]:
    made = Stages()
    yield made
    made.close()
