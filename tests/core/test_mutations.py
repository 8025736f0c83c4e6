"""The simulation notices what it is there to notice: each planted bug, within a few worlds."""

import pytest

from core.mutations import MUTATIONS, planted
from core.soak import first_to_show

# Three times what the slowest one takes.
WORLDS = 250


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_planted_bug_is_caught(name: str) -> None:
    with planted(MUTATIONS[name]):
        seed, _ = first_to_show(WORLDS)
    assert seed is not None
