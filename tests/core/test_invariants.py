"""Hypothesis lives through worlds of its own choice, and shrinks what goes wrong."""

import random

from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from core.actors import Actors, random_settings, random_specs
from core.invariants import Invariants, check_empty
from core.world import START, World

CHANCES = st.randoms(use_true_random=False)


class Life(RuleBasedStateMachine):
    """One world; every rule is one thing that happens in it."""

    @initialize(chance=CHANCES)
    def begin(self, chance: random.Random) -> None:
        self.world = World(random_specs(chance), random_settings(chance), now=START)
        Invariants(self.world)
        self.actors = Actors(self.world)

    @rule(chance=CHANCES)
    def acquire(self, chance: random.Random) -> None:
        self.actors.acquire(chance)

    @rule(chance=CHANCES)
    def acquire_another(self, chance: random.Random) -> None:
        self.actors.acquire(chance)

    @rule(chance=CHANCES)
    def join(self, chance: random.Random) -> None:
        self.actors.join(chance)

    @rule(chance=CHANCES)
    def hang_up(self, chance: random.Random) -> None:
        self.actors.hang_up(chance)

    @rule(chance=CHANCES)
    def written(self, chance: random.Random) -> None:
        self.actors.written(chance)

    @rule(chance=CHANCES)
    def cancel(self, chance: random.Random) -> None:
        self.actors.cancel(chance)

    @rule(chance=CHANCES)
    def release(self, chance: random.Random) -> None:
        self.actors.release(chance)

    @rule(chance=CHANCES)
    def renew(self, chance: random.Random) -> None:
        self.actors.renew(chance)

    @rule(chance=CHANCES)
    def resize(self, chance: random.Random) -> None:
        self.actors.resize(chance)

    @rule(chance=CHANCES)
    def die(self, chance: random.Random) -> None:
        self.actors.die(chance)

    @rule(chance=CHANCES)
    def spawn(self, chance: random.Random) -> None:
        self.actors.spawn(chance)

    @rule(chance=CHANCES)
    def look(self, chance: random.Random) -> None:
        self.actors.look(chance)

    @rule(chance=CHANCES)
    def lose(self, chance: random.Random) -> None:
        self.actors.lose(chance)

    @rule(chance=CHANCES)
    def find(self, chance: random.Random) -> None:
        self.actors.find(chance)

    @rule(chance=CHANCES)
    def drain(self, chance: random.Random) -> None:
        self.actors.drain(chance)

    @rule(chance=CHANCES)
    def resume(self, chance: random.Random) -> None:
        self.actors.resume(chance)

    @rule(chance=CHANCES)
    def revoke(self, chance: random.Random) -> None:
        self.actors.revoke(chance)

    @rule(chance=CHANCES)
    def configure(self, chance: random.Random) -> None:
        self.actors.configure(chance)

    @rule(chance=CHANCES)
    def wait(self, chance: random.Random) -> None:
        self.actors.wait(chance)

    def teardown(self) -> None:
        if hasattr(self, "actors"):
            self.actors.leave(random.Random(0))
            check_empty(self.world)


TestLife = Life.TestCase
TestLife.settings = hypothesis_settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    # The world is small, but many of its rules do nothing yet when it begins.
    suppress_health_check=[HealthCheck.too_slow],
)
