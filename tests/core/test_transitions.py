"""An illegal transition raises and changes nothing; what is remembered is bounded."""

import pytest

from core.world import World, gpus, pid, seen
from gpuarbiter_server.core import effects as fx
from gpuarbiter_server.core import owners as owners_module
from gpuarbiter_server.core.errors import ArbiterError, ErrorReason
from gpuarbiter_server.core.model import Sequence
from gpuarbiter_server.core.owners import Owners
from gpuarbiter_server.core.ticket import Ticket


def queued(world: World) -> Ticket:
    world.acquire()
    stream = world.acquire(client="b")
    ticket = world.state.calls[stream.call]
    assert isinstance(ticket, Ticket)
    return ticket


def test_a_ticket_leaves_the_queue_once() -> None:
    world = World()
    ticket = queued(world)
    world.state.queue.remove(ticket)
    for change in (world.state.queue.remove, world.state.queue.unpark, world.state.queue.position):
        with pytest.raises(ValueError, match="is not in the queue"):
            change(ticket)
    assert len(world.state.queue) == 0


def test_a_ticket_that_no_gate_keeps_cannot_be_given_back() -> None:
    world = World()
    ticket = queued(world)
    with pytest.raises(ValueError, match="is not kept back by any gate"):
        world.state.queue.unpark(ticket)
    assert ticket.lane is not None
    assert len(ticket.lane.ready) == 1


def test_an_error_is_an_effect_and_changes_nothing_else() -> None:
    world = World(gpus(2))
    first = world.acquire(request_id="r", sequence=("talk", 1))
    revision, deadline = world.arbiter.revision, world.arbiter.next_deadline()
    second = world.again(first, sequence=Sequence("talk", 2))
    assert [type(effect) for effect in world.effects] == [fx.Failed]
    assert second.error.reason is ErrorReason.REQUEST_ID_CONFLICT
    assert (world.arbiter.revision, world.arbiter.next_deadline()) == (revision, deadline)
    assert first.held


def test_an_error_carries_facts_for_programs_and_words_for_people() -> None:
    error = ArbiterError(ErrorReason.INFEASIBLE, "too large")
    assert (error.metadata, error.retry_after, error.violations, str(error)) == ({}, None, (), "too large")


def test_the_descendants_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners_module, "_REMEMBERED", 3)
    owners = Owners()
    owners.add(pid(1))
    owners.learn(pid(1), [pid(n) for n in range(10, 15)])
    assert owners.family(pid(1)) == {pid(1), pid(12), pid(13), pid(14)}
    owners.forget(pid(13))
    owners.forget(pid(13))
    assert owners.holder_of(seen(pid(13), 0)) is None
    # Whoever is seen again is remembered anew.
    assert owners.holder_of(seen(pid(12), 0, pid(1))) == pid(1)
    owners.learn(pid(1), [pid(20), pid(21)])
    assert owners.family(pid(1)) == {pid(1), pid(12), pid(20), pid(21)}


def test_who_is_a_holder_itself_is_nobodys_descendant() -> None:
    owners = Owners()
    owners.add(pid(1))
    owners.add(pid(2))
    owners.learn(pid(1), [pid(2)])
    assert owners.holder_of(seen(pid(2), 0, pid(1))) == pid(2)
    owners.drop(pid(2))
    assert owners.holder_of(seen(pid(2), 0, pid(1))) == pid(1)
