"""An exclusive lease that ended without its holder's word blocks the GPU until its processes are gone."""

from typing import Any

import pytest

from core.world import GIB, World, gpus, pid, seen, settings
from gpuarbiter_server.core import effects as fx
from gpuarbiter_server.core.model import EventType, ProcessId, Sharing, WaitReason

P, CHILD, STRANGER = pid(10), pid(11), pid(66)


def watched(processes: dict[ProcessId, int] | None = None, **others: Any) -> World:
    world = World(gpus(monitored=True), settings(**others))
    world.show(used=0, processes=processes or {})
    return world


def cooling(world: World) -> float | None:
    return world.gpu().cooldown_remaining


# -- without readings --


def test_without_readings_or_a_known_process_it_lasts_its_time() -> None:
    world = World()
    world.hang_up(world.acquire())
    waiting = world.acquire()
    assert waiting.queued.reason is WaitReason.COOLDOWN
    assert cooling(world) == 15
    (started,) = world.recorded(EventType.COOLDOWN_STARTED)
    assert started.detail == "for at most 15 s"
    world.advance(14.875)
    assert waiting.waiting
    world.advance(0.125)
    assert waiting.held
    assert cooling(world) is None
    (ended,) = world.recorded(EventType.COOLDOWN_ENDED)
    assert ended.detail == "after 15.000 s: the time is over"
    assert ended.lease_id == started.lease_id


@pytest.mark.parametrize("length", [0.0, 3.0])
def test_its_length_is_a_setting(length: float) -> None:
    world = World(settings_=settings(cooldown=length))
    world.hang_up(world.acquire())
    waiting = world.acquire()
    assert waiting.held is (length == 0)
    world.advance(length)
    assert waiting.held


def test_the_holders_word_needs_none() -> None:
    world = World()
    world.release(world.acquire())
    assert world.acquire().held


def test_nor_does_a_yield() -> None:
    world = World()
    lease = world.acquire()
    world.revoke(lease.lease_id, grace=10)
    world.release(lease)
    assert world.acquire().held


def test_nor_a_shared_lease() -> None:
    world = World()
    world.hang_up(world.shared(GIB))
    assert world.acquire().held


def test_a_lease_that_is_exclusive_by_now_does() -> None:
    world = World()
    lease = world.shared(GIB)
    world.resize(lease.lease_id, sharing=Sharing.EXCLUSIVE)
    world.hang_up(lease)
    assert world.acquire().waiting


def test_an_operators_revocation_is_not_the_holders_word() -> None:
    world = World()
    world.revoke(world.acquire().lease_id)
    assert world.acquire().queued.reason is WaitReason.COOLDOWN


def test_it_ends_when_the_kernel_says_that_the_holder_is_dead() -> None:
    world = World()
    world.hang_up(world.acquire(process=P))
    waiting = world.acquire()
    assert world.watched == {P}
    world.die(pid(10, start=7))
    assert waiting.waiting
    world.die(P)
    assert waiting.held
    assert world.watched == set()
    assert "its processes are dead" in world.recorded(EventType.COOLDOWN_ENDED)[0].detail


def test_a_holder_that_died_alone_needs_none() -> None:
    world = World()
    world.acquire(process=P)
    waiting = world.acquire()
    world.die(P)
    assert waiting.held
    assert not world.recorded(EventType.COOLDOWN_STARTED)


def test_every_descendant_must_be_dead_also_after_its_parent_died() -> None:
    world = World()
    world.acquire(process=P)
    world.spawn(P, CHILD, pid(12))
    waiting = world.acquire()
    world.die(CHILD)
    world.die(P)
    assert waiting.waiting
    assert world.watched == {pid(12)}
    # A descendant that was not seen before the end, of one that is waited for.
    world.spawn(pid(12), pid(13), pid(12))
    assert world.watched == {pid(12), pid(13)}
    world.die(pid(12))
    assert waiting.waiting
    world.spawn(pid(99), pid(98))
    world.die(pid(13))
    assert waiting.held


def test_time_ends_it_whoever_still_lives() -> None:
    world = World()
    world.hang_up(world.acquire(process=P))
    world.advance(15)
    assert world.acquire().held
    assert world.watched == set()


# -- with readings --


def test_a_gpu_on_which_nobody_new_is_seen_needs_none() -> None:
    world = watched({STRANGER: GIB})
    world.hang_up(world.acquire())
    waiting = world.acquire()
    assert waiting.queued.reason is WaitReason.COOLDOWN
    assert cooling(world) is None  # it is only being checked
    world.look()
    assert waiting.held
    assert not world.recorded(EventType.COOLDOWN_STARTED)
    assert not world.recorded(EventType.COOLDOWN_ENDED)


def test_it_asks_for_a_reading_at_once() -> None:
    world = watched()
    effects = world.hang_up(world.acquire())
    assert fx.Refresh(frozenset({"gpu:0"})) in effects


def test_a_reading_from_before_the_end_proves_nothing() -> None:
    world = watched()
    lease = world.acquire()
    world.hide()
    world.advance(1)
    world.hang_up(lease)
    waiting = world.acquire()
    world.read(processes={}, at=world.now - 0.5)
    assert waiting.waiting
    world.read(processes={})
    assert waiting.held


def test_who_is_still_there_keeps_the_gpu_until_it_is_gone() -> None:
    world = watched()
    lease = world.acquire(process=P)
    world.show(used=GIB, processes={P: GIB})
    world.hang_up(lease)
    waiting = world.acquire()
    world.look()
    assert cooling(world) == 15
    assert len(world.recorded(EventType.COOLDOWN_STARTED)) == 1
    world.advance(3)
    assert len(world.recorded(EventType.COOLDOWN_STARTED)) == 1
    assert waiting.waiting
    assert fx.Refresh(frozenset({"gpu:0"})) in world.die(P)
    world.show(processes={})
    assert waiting.held
    assert world.recorded(EventType.COOLDOWN_ENDED)[0].detail == "after 3.000 s: its processes are gone from the GPU"


def test_who_was_there_before_the_lease_does_not_count() -> None:
    world = watched({P: GIB})
    world.hang_up(world.acquire(process=P))
    world.look()
    assert world.acquire().held


def test_a_child_that_was_there_before_counts_once_its_parent_is_dead() -> None:
    world = watched()
    world.spawn(P, CHILD)
    world.show(used=GIB, processes={CHILD: GIB})
    world.acquire(process=P)
    world.spawn(P, CHILD)
    world.die(P)
    waiting = world.acquire()
    world.look()
    assert (waiting.waiting, cooling(world)) == (True, 15)
    world.show(processes={})
    assert waiting.held


def test_readings_without_processes_leave_it_to_the_kernel() -> None:
    world = watched()
    world.hang_up(world.acquire(process=P))
    waiting = world.acquire()
    world.show(used=0, processes=None)
    assert cooling(world) == 15
    world.look()
    world.die(P)
    assert waiting.held


def test_or_end_it_where_the_kernel_has_spoken() -> None:
    world = watched()
    world.acquire(process=P)
    world.die(P)
    waiting = world.acquire()
    assert waiting.waiting
    world.show(used=0, processes=None)
    assert waiting.held


@pytest.mark.parametrize("how", ["stop", "lost"])
def test_readings_that_stop_leave_it_to_the_kernel_too(how: str) -> None:
    world = watched()
    lease = world.acquire(process=P)
    world.hide()
    world.hang_up(lease)
    assert cooling(world) is None
    if how == "stop":
        world.advance(2)
        assert cooling(world) == 13
    else:
        world.lose()
        assert cooling(world) == 15
    world.die(P)
    assert cooling(world) is None
    world.read(processes={})
    assert world.acquire().held


def test_readings_that_come_back_can_prove_it() -> None:
    world = watched()
    lease = world.acquire(process=P)
    world.hide()
    world.hang_up(lease)
    world.advance(2)
    waiting = world.acquire()
    world.read(used=GIB, processes=[seen(CHILD, GIB, P)])
    assert waiting.waiting
    world.read(processes={})
    assert waiting.held


def test_without_a_current_reading_at_the_end_the_kernel_decides() -> None:
    world = watched()
    lease = world.acquire(process=P)
    world.hide()
    world.advance(2)
    world.hang_up(lease)
    assert cooling(world) == 15
    world.die(P)
    assert world.acquire().held


def test_each_gpu_of_a_lease_cools_down_for_itself() -> None:
    world = World(gpus(2, monitored=True))
    world.show("gpu:0", processes={})
    world.show("gpu:1", processes={})
    lease = world.acquire(count=2, process=P)
    world.show("gpu:1", GIB, {P: GIB})
    world.hang_up(lease)
    world.look("gpu:0")
    world.look("gpu:1")
    assert world.acquire().on == ("gpu:0",)
    assert world.acquire().queued.reason is WaitReason.GPU_BUSY
    world.advance(15)
    assert not world.state.gpus["gpu:1"].cooldown
    assert world.watched == set()


def test_shared_requests_wait_for_it_too() -> None:
    world = World()
    world.hang_up(world.acquire())
    assert world.shared(GIB).queued.reason is WaitReason.COOLDOWN


def test_an_ended_cooldown_leaves_nothing_behind() -> None:
    world = watched()
    world.hang_up(world.acquire(process=P))
    world.look()
    world.hide()
    world.advance(3)
    assert world.arbiter.next_deadline() is None
    assert not world.state._interest
