"""Random worlds, each from its seed. To replay one: `simulate(seed, steps)`."""

import pytest

from core.simulation import simulate

WORLDS, STEPS, BATCH = 300, 150, 20


@pytest.mark.parametrize("first", range(0, WORLDS, BATCH))
def test_whatever_happens_the_invariants_hold(first: int) -> None:
    grants = 0
    for seed in range(first, first + BATCH):
        try:
            world = simulate(seed, STEPS)
        except AssertionError as failure:
            failure.add_note(f"seed {seed}, {STEPS} steps")
            raise
        grants += world.newest_token
    assert grants > BATCH * 100  # something has happened


def test_a_seed_is_a_life() -> None:
    first, second = simulate(42, 100), simulate(42, 100)
    assert first.records == second.records
