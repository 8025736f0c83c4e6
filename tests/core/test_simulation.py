"""Random worlds, each from its seed; a seed that fails is replayed with `python -m core.simulation SEED`."""

import pytest

from core.simulation import Life, simulate

WORLDS, BATCH = 2000, 50


@pytest.mark.parametrize("first", range(0, WORLDS, BATCH))
def test_whatever_happens_the_invariants_hold(first: int) -> None:
    life = Life()
    for seed in range(first, first + BATCH):
        try:
            life += simulate(seed)
        except Exception as failure:
            failure.add_note(f"seed {seed}")
            raise
    # Something has happened.
    assert life.steps == BATCH * 200
    assert min(life.granted, life.crashes, life.recovered, life.journal_failures) > BATCH / 4
