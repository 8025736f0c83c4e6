"""Seeded random worlds: the same seed is the same life, event by event."""

import random

from core.actors import ACTS, Actors, random_settings, random_specs
from core.invariants import Invariants, check_empty
from core.world import START, World


def simulate(seed: int, steps: int) -> World:
    """Lives through a world of so many steps, with every invariant checked after each event."""
    chance = random.Random(seed)
    # Any start, so that sums of times round in every way.
    now = START + chance.choice((0.0, chance.random()))
    journal = chance.random() < 0.8
    world = World(random_specs(chance), random_settings(chance), now=now, journal=journal, lag=chance.random() < 0.8)
    Invariants(world)
    actors = Actors(world)
    acts, weights = list(ACTS), list(ACTS.values())
    for act in chance.choices(acts, weights, k=steps):
        act(actors, chance)
    actors.leave(chance)
    check_empty(world)
    return world
