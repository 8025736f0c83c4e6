"""Seeded random worlds: the same seed is the same life, event by event.

python -m core.simulation SEED [STEPS]        replays one world, and tells its events
"""

import random
import sys
from bisect import bisect
from dataclasses import dataclass
from itertools import accumulate

from core.actors import ACTS, Actors, random_settings, random_specs
from core.invariants import Invariants, check_empty
from core.world import START, World
from gpuarbiter_server.core import effects as fx
from gpuarbiter_server.core import events as ev
from gpuarbiter_server.core.model import EventType

STEPS = 200
# Acts that are drawn for one step until one of them does something.
_DRAWS = 20


@dataclass(slots=True)
class Life:
    """What happened in a world, or in many."""

    worlds: int = 0
    steps: int = 0
    events: int = 0
    granted: int = 0
    crashes: int = 0
    recovered: int = 0
    journal_failures: int = 0

    def __add__(self, other: "Life") -> "Life":
        return Life(*(getattr(self, name) + getattr(other, name) for name in Life.__slots__))


def simulate(seed: int, steps: int = STEPS, *, told: bool = False) -> Life:
    """Lives through a world of so many steps, with every invariant checked after each event."""
    chance = random.Random(seed)
    # Any start, so that sums of times round in every way.
    now = START + chance.choice((0.0, chance.random()))
    journal = chance.random() < 0.8
    world = World(random_specs(chance), random_settings(chance), now=now, journal=journal, lag=chance.random() < 0.8)
    life = Life(worlds=1)
    world.watchers.append(lambda world, event: _count(life, world, event))
    if told:
        world.watchers.append(_tell)
    Invariants(world)
    actors = Actors(world)
    acts, bounds = list(ACTS), list(accumulate(ACTS.values()))
    for _ in range(steps):
        life.steps += 1
        before = life.events
        for _ in range(_DRAWS):
            acts[bisect(bounds, chance.random() * bounds[-1])](actors, chance)
            if life.events > before:
                break
    actors.leave(chance)
    check_empty(world)
    return life


def _count(life: Life, world: World, event: ev.Event) -> None:
    life.events += 1
    life.granted += world.count(fx.Granted)
    if isinstance(event, ev.Recover):
        life.crashes += 1
        life.recovered += len(world.state.leases.live)
    elif isinstance(event, ev.JournalFailed):
        life.journal_failures += 1


def _tell(world: World, event: ev.Event) -> None:
    print(f"{world.now:.4f} {event}")
    for effect in world.effects:
        if not isinstance(effect, fx.Recorded) or effect.type is EventType.ENDED:
            print(f"    {effect}")


if __name__ == "__main__":
    print(simulate(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else STEPS, told=True))
