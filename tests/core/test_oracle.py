"""The scheduler against the plainest arbiter there can be: the same grants on the same GPUs, event by event."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core.naive import NaiveArbiter, Wish
from core.world import GIB, PATIENT, Stream, World, settings
from gpuarbiter_server.core.model import GpuSpec, Placement, Sharing
from gpuarbiter_server.core.views import LeaseView

# Task types; one of them may have no more than two leases, one no more than one.
TASKS = ("FREE", "TWO", "ONE")
LIMITS = {"TWO": 2, "ONE": 1}
PLACEMENTS = (Placement.LEAST_LOADED, Placement.BEST_FIT, Placement.ROUND_ROBIN)


class Pair:
    """An arbiter and its naive twin, which live through the same events."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        sizes = {f"gpu:{n}": chance.choice((8, 16, 24)) * GIB for n in range(chance.randint(1, 4))}
        aging = chance.choice((0.0, 0.5, 1.0, 2.0))
        per_client = chance.choice((0, 0, 1, 3))
        policies = {task: replace(PATIENT, max_concurrent_leases=limit) for task, limit in LIMITS.items()}
        specs = [GpuSpec(key, n, size, monitored=False) for n, (key, size) in enumerate(sizes.items())]
        chosen = settings(policies=policies, aging=aging, leases_per_client=per_client, queue_limit=10**6, cooldown=0.0)
        self.world = World(specs, chosen)
        self.twin = NaiveArbiter(sizes, aging=aging, per_client=per_client, per_task=LIMITS)
        self.streams: dict[str, Stream] = {}
        self.arrivals = 0

    def act(self) -> None:
        """One event, in both worlds."""
        acts = [self.arrive] * 6 + [self.release] * 3
        acts += [self.cancel, self.leave, self.come_back, self.drain, self.resume, self.wait]
        self.chance.choice(acts)()
        self.compare()

    def compare(self) -> None:
        """Both must have granted the same."""
        self.twin.settle(self.world.now)
        held = {lease.request_id: tuple(grant.spec.key for grant in lease.gpus) for lease in self._leases()}
        assert held == {name: keys for name, (_, keys) in self.twin.held.items()}
        assert {ticket.request_id for ticket in self.world.snapshot(max_tickets=10**6).queue} == set(self.twin.waiting)

    def arrive(self) -> None:
        chance = self.chance
        self.arrivals += 1
        keys = list(self.twin.sizes)
        candidates = tuple(chance.sample(keys, chance.randint(1, len(keys)))) if chance.random() < 0.6 else ()
        memory = chance.choice((0, 1, 2, 6, 12, 20)) * GIB
        fitting = tuple(key for key in candidates or keys if memory <= self.twin.sizes[key])
        count = min(chance.choice((1, 1, 1, 2, 3)), len(fitting))
        client = chance.choice("abc")
        if not count or (self.twin.per_client and self._leases_of(client) >= self.twin.per_client):
            return  # refused at once, by both
        wish = Wish(
            name=f"r{self.arrivals}",
            number=self.arrivals,
            arrived_at=self.world.now,
            priority=chance.choice((0, 40, 50, 51, 52, 100)),
            candidates=fitting,
            count=count,
            exclusive=chance.random() < 0.4,
            memory=memory,
            placement=chance.choice(PLACEMENTS),
            task_type=chance.choice(TASKS),
            client=client,
            sequence=(chance.choice("xy"), chance.randint(0, 3)) if chance.random() < 0.3 else None,
        )
        self.twin.waiting[wish.name] = wish
        self.streams[wish.name] = self.world.acquire(
            wish.task_type,
            wish.client,
            request_id=wish.name,
            candidates=candidates,
            count=count,
            memory=memory,
            sharing=Sharing.EXCLUSIVE if wish.exclusive else Sharing.SHARED,
            placement=wish.placement,
            priority=wish.priority,
            sequence=wish.sequence,
            ttl=3600.0,
        )

    def release(self) -> None:
        if self.twin.held:
            name = self.chance.choice(list(self.twin.held))
            del self.twin.held[name]
            self.world.release(self.streams[name])

    def cancel(self) -> None:
        if self.twin.waiting:
            name = self.chance.choice(list(self.twin.waiting))
            del self.twin.waiting[name]
            self.world.release(request_id=name)

    def leave(self) -> None:
        there = [wish for wish in self.twin.waiting.values() if wish.present]
        if there:
            wish = self.chance.choice(there)
            self.twin.waiting[wish.name] = replace(wish, present=False)
            self.world.hang_up(self.streams[wish.name])

    def come_back(self) -> None:
        """Joins again, present or not, with another priority perhaps."""
        if self.twin.waiting:
            wish = self.chance.choice(list(self.twin.waiting.values()))
            priority = self.chance.choice((wish.priority, 0, 51, 100))
            self.twin.waiting[wish.name] = replace(wish, present=True, priority=priority)
            self.streams[wish.name] = self.world.again(self.streams[wish.name], priority=priority)

    def drain(self) -> None:
        key = self.chance.choice(list(self.twin.sizes))
        self.twin.cordoned.add(key)
        self.world.drain(key)

    def resume(self) -> None:
        keys = tuple(self.twin.cordoned)
        self.twin.cordoned.clear()
        self.world.resume(*keys)

    def wait(self) -> None:
        self.world.advance(self.chance.choice((0.125, 1.0, 10.0)))

    def _leases(self) -> tuple[LeaseView, ...]:
        return self.world.snapshot().leases

    def _leases_of(self, client: str) -> int:
        return sum(wish.client == client for wish, _ in self.twin.held.values())


@pytest.mark.parametrize("seed", range(150))
def test_event_by_event(seed: int) -> None:
    pair = Pair(random.Random(seed))
    for _ in range(80):
        pair.act()


@pytest.mark.parametrize("seed", range(60))
def test_one_pass_over_a_whole_queue(seed: int) -> None:
    """Everything is cordoned while the queue fills; one pass grants what it can."""
    pair = Pair(random.Random(1000 + seed))
    for key in pair.twin.sizes:
        pair.twin.cordoned.add(key)
        pair.world.drain(key)
    for _ in range(60):
        pair.arrive()
        if pair.chance.random() < 0.2:
            pair.leave()
        if pair.chance.random() < 0.2:
            pair.world.advance(pair.chance.choice((0.25, 3.0)))
    assert not pair.world.snapshot().leases
    pair.resume()
    pair.compare()


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 40))
def test_event_by_event_found_by_search(chance: random.Random, events: int) -> None:
    pair = Pair(chance)
    for _ in range(events):
        pair.act()
