"""Memory of leases that ended: it counts until a reading shows that it is back."""

from dataclasses import replace
from typing import Any

import pytest

from core.world import GIB, MIB, NO_HEADROOM, World, gpus, pid, settings
from gpuarbiter_server.core import effects as fx
from gpuarbiter_server.core.model import EventType, WaitReason

P, Q = pid(10), pid(20)


def watched(**others: Any) -> World:
    world = World(gpus(monitored=True), settings(**others))
    world.show(used=0, processes={})
    return world


def test_a_release_frees_the_slot_at_once_and_the_memory_when_a_reading_shows_it() -> None:
    world = watched()
    holder = world.shared(20 * GIB, process=P)
    world.show(used=20 * GIB, processes={P: 20 * GIB})
    waiting = world.shared(20 * GIB, process=Q)
    assert waiting.queued.reason is WaitReason.MEMORY
    world.advance(1)
    world.hide()
    world.release(holder)
    assert waiting.waiting
    assert world.reason(waiting) is WaitReason.MEMORY_RECOVERY
    assert [effect.gpus for effect in world.effects if isinstance(effect, fx.Refresh)] == [{"gpu:0"}]
    assert world.fast == {"gpu:0"}
    world.advance(0.125)
    world.show(used=0, processes={})
    assert waiting.held
    (back,) = world.recorded(EventType.MEMORY_RECOVERED)
    assert back.lease_id == holder.lease_id
    assert back.waited == 0.125
    assert "0.125 s" in back.detail


def test_all_of_the_memory_is_waited_for_by_name() -> None:
    world = watched()
    holder = world.shared(24 * GIB, process=P)
    waiting = world.shared(24 * GIB, process=Q)
    world.release(holder)
    assert world.reason(waiting) is WaitReason.MEMORY_RECOVERY


def test_who_needs_no_memory_waits_for_none() -> None:
    world = watched()
    holder = world.acquire(memory=20 * GIB, process=P)
    waiting = world.acquire(client="c2")
    world.release(holder)
    assert waiting.held


def test_a_reading_from_before_the_end_proves_nothing() -> None:
    world = watched()
    holder = world.shared(20 * GIB, process=P)
    waiting = world.shared(20 * GIB, process=Q)
    world.hide()
    world.advance(1)
    world.release(holder)
    world.read(used=0, processes={}, at=world.now - 0.5)
    assert waiting.waiting
    assert world.count(fx.Refresh) == 1  # it wants another one
    world.read(used=0, processes={})
    assert waiting.held


def test_one_question_for_a_reading_is_enough() -> None:
    world = watched()
    holder = world.shared(20 * GIB, process=P)
    world.shared(20 * GIB, process=Q)
    world.release(holder)
    assert world.count(fx.Refresh) == 1
    world.shared(GIB)
    assert world.count(fx.Refresh) == 0


def test_memory_that_is_still_there_is_waited_for_by_name_and_then_given_up() -> None:
    world = watched(memory=replace(NO_HEADROOM, recovery_limit=3.0))
    holder = world.shared(20 * GIB, process=P)
    waiting = world.shared(20 * GIB, process=Q)
    world.show(used=20 * GIB, processes={P: 20 * GIB})
    world.release(holder)
    world.look()
    assert world.gpu().unleased_bytes == 20 * GIB
    assert world.reason(waiting) is WaitReason.MEMORY_RECOVERY
    world.advance(2.875)
    assert world.reason(waiting) is WaitReason.MEMORY_RECOVERY
    world.advance(0.125)
    assert world.reason(waiting) is WaitReason.MEMORY
    assert not world.recorded(EventType.MEMORY_RECOVERED)
    world.show(used=0, processes={})
    assert waiting.held


def test_each_ended_lease_is_given_up_at_its_own_time() -> None:
    world = watched(memory=replace(NO_HEADROOM, recovery_limit=3.0))
    first = world.shared(10 * GIB, process=P)
    second = world.shared(10 * GIB, process=Q)
    waiting = world.shared(20 * GIB, process=pid(30))
    world.show(used=20 * GIB, processes={P: 10 * GIB, Q: 10 * GIB})
    world.release(first)
    world.advance(1)
    world.release(second)
    world.advance(2.5)
    assert list(world.state.gpus["gpu:0"].recovering) == [second.lease_id]
    assert world.reason(waiting) is WaitReason.MEMORY  # half of it would not be enough
    world.advance(0.5)
    assert not world.state.gpus["gpu:0"].recovering


@pytest.mark.parametrize("start", [1023.9999999999999, 1e5 + 0.1, 4095.7])
def test_giving_up_comes_to_an_end_whatever_the_sums_round_to(start: float) -> None:
    for n in range(40):
        world = World(gpus(monitored=True), now=start + n * 0.1)
        world.show(used=20 * GIB, processes={P: 20 * GIB})
        world.release(world.shared(20 * GIB, process=P))
        world.look()
        world.advance(11)
        assert not world.state.gpus["gpu:0"].recovering


def test_a_little_that_stays_is_not_waited_for() -> None:
    world = watched()
    holder = world.shared(20 * GIB, process=P)
    waiting = world.shared(20 * GIB, process=Q)
    world.release(holder)
    world.show(used=64 * MIB, processes={P: 64 * MIB})
    assert waiting.held
    assert not world.state.gpus["gpu:0"].recovering


def test_what_the_holder_had_before_the_lease_need_not_come_back() -> None:
    world = watched()
    world.show(used=8 * GIB, processes={P: 8 * GIB})
    holder = world.shared(20 * GIB, process=P)
    waiting = world.shared(16 * GIB, process=Q)
    world.release(holder)
    world.look()
    assert waiting.held
    assert world.gpu().unleased_bytes == 8 * GIB


@pytest.mark.parametrize("listed", [True, False], ids=["processes listed", "not listed"])
def test_memory_of_a_lease_without_a_pid_comes_back_too(listed: bool) -> None:
    world = watched()
    stranger = {pid(66): 2 * GIB}
    world.show(used=2 * GIB, processes=stranger if listed else None)
    holder = world.shared(20 * GIB)
    waiting = world.shared(20 * GIB, "c2")
    world.show(used=22 * GIB, processes={**stranger, pid(77): 20 * GIB} if listed else None)
    world.release(holder)
    world.look()
    assert world.reason(waiting) is WaitReason.MEMORY_RECOVERY
    world.show(used=2 * GIB, processes=stranger if listed else None)
    assert waiting.held
    assert len(world.recorded(EventType.MEMORY_RECOVERED)) == 1


def test_the_same_process_takes_its_own_place_again_without_waiting_for_a_reading() -> None:
    world = watched()
    holder = world.shared(20 * GIB, process=P)
    world.show(used=20 * GIB, processes={P: 20 * GIB})
    world.release(holder)
    again = world.shared(22 * GIB, process=P)
    assert again.held
    assert world.gpu().committed_bytes == 22 * GIB
    assert world.gpu().unleased_bytes == 0


def test_two_that_end_before_a_reading_count_once_each() -> None:
    world = watched()
    first = world.shared(6 * GIB, process=P)
    second = world.shared(6 * GIB, process=Q)
    world.show(used=12 * GIB, processes={P: 6 * GIB, Q: 6 * GIB})
    world.release(first)
    world.release(second)
    assert world.gpu().committed_bytes == 12 * GIB
    assert world.gpu().unleased_bytes == 0
    assert world.shared(12 * GIB, process=pid(30)).held
    world.look()
    # Now it is known what they left behind, and to whom it belongs is nobody's business any more.
    assert world.gpu().committed_bytes == 12 * GIB
    assert world.gpu().unleased_bytes == 12 * GIB
    assert not world.state.owners._holders.keys() - {pid(30)}


def test_without_a_current_reading_nothing_is_waited_for() -> None:
    world = watched()
    holder = world.shared(20 * GIB, process=P)
    waiting = world.shared(20 * GIB, process=Q)
    world.hide()
    world.advance(2)
    world.release(holder)
    assert waiting.held


def test_readings_that_stop_end_the_waiting_for_memory() -> None:
    world = watched()
    holder = world.shared(20 * GIB, process=P)
    waiting = world.shared(20 * GIB, process=Q)
    world.hide()
    world.release(holder)
    assert world.reason(waiting) is WaitReason.MEMORY_RECOVERY
    world.advance(2)
    assert waiting.held
    assert P not in world.state.owners._holders


def test_a_grant_that_nobody_knew_of_leaves_no_memory_behind() -> None:
    world = watched()
    unseen = world.shared(20 * GIB, process=P)
    waiting = world.shared(20 * GIB, process=Q)
    world.hang_up(unseen, delivered=False)
    assert waiting.held
    assert world.gpu().stats.hold_p50 is None
