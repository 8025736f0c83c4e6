"""Gated requests: they are granted nothing, and hold nobody back."""

from dataclasses import replace
from typing import Any

import pytest

from core.world import GIB, PATIENT, World, gpus, pid, settings
from gpuarbiter_server.core.model import Sharing, WaitReason
from gpuarbiter_server.core.policy import Policy

# One lease of this type at a time.
ONE = replace(PATIENT, max_concurrent_leases=1)


# -- sequences --


def test_a_lower_index_goes_first_whatever_the_priority() -> None:
    world = World(gpus(2))
    holder = world.acquire(sequence=("talk", 0))
    third = world.acquire(sequence=("talk", 2), priority=100)
    second = world.acquire(sequence=("talk", 1), priority=0)
    assert third.queued.reason is second.queued.reason is WaitReason.SEQUENCE
    world.release(holder)
    assert second.held
    assert third.waiting
    world.release(second)
    assert third.held


def test_a_waiting_sequence_holds_nobody_back() -> None:
    world = World(gpus(2))
    world.acquire(sequence=("talk", 0))
    waiting = world.acquire(sequence=("talk", 1), priority=100)
    other = world.acquire(priority=1)
    assert waiting.waiting
    assert other.held


def test_equal_indices_have_no_order_between_them() -> None:
    world = World(gpus(3))
    first = world.acquire(sequence=("talk", 4))
    second = world.acquire(sequence=("talk", 4))
    later = [world.acquire(sequence=("talk", 5)) for _ in range(2)]
    assert second.held
    world.release(first)
    assert all(stream.waiting for stream in later)
    world.release(second)
    assert all(stream.held for stream in later)


def test_a_late_lower_index_goes_ahead_of_higher_ones_that_still_wait() -> None:
    world = World()
    holder = world.acquire(client="other")
    high = world.acquire(sequence=("talk", 9))
    late = world.acquire(sequence=("talk", 3))
    world.release(holder)
    assert late.held
    assert high.waiting
    assert world.reason(high) is WaitReason.SEQUENCE
    world.release(late)
    assert high.held


@pytest.mark.parametrize(
    "other",
    [
        {"sequence": ("other talk", 1)},
        {"sequence": ("talk", 1), "client": "c2"},
        {"sequence": ("talk", 1), "principal": "someone"},
        {"sequence": ("talk", 1), "task_type": "NMT"},
    ],
    ids=["group", "client", "principal", "task type"],
)
def test_a_group_is_of_one_task_type_and_one_identity(other: dict[str, Any]) -> None:
    world = World(gpus(2))
    world.acquire(sequence=("talk", 0))
    assert world.acquire(**other).held


@pytest.mark.parametrize("way", ["declined", "timed out", "cancelled", "given up", "ended"])
def test_a_lower_index_that_is_done_with_lets_the_next_go(way: str) -> None:
    world = World(gpus(2), settings(cooldown=0.0))
    blocker = world.acquire(client="other", candidates=("gpu:0",))
    lower = world.acquire(
        sequence=("talk", 1),
        candidates=("gpu:0",) if way != "ended" else ("gpu:1",),
        request_id="lower",
        max_wait=2 if way == "timed out" else None,
    )
    higher = world.acquire(sequence=("talk", 2), candidates=("gpu:1",))
    assert higher.waiting
    if way == "declined":
        world.release(request_id="lower")
    elif way == "timed out":
        world.advance(2)
        assert lower.error.reason.name == "WAIT_TIMEOUT"
    elif way == "cancelled":
        world.cancel(lower)
    else:
        world.hang_up(lower)
        assert higher.waiting  # it could still be joined
        world.advance(5)
    assert higher.held
    assert blocker.held


def test_a_sequence_leaves_nothing_behind() -> None:
    world = World()
    holder = world.acquire(sequence=("talk", 0))
    for index in range(1, 300):
        world.release(request_id=world.acquire(sequence=("talk", index)).queued.request_id)
    (group,) = world.state.gates._groups.values()
    assert len(group._indices) == len(group._members) == 1
    world.release(holder)
    assert not world.state.gates._groups


# -- limits of a task type --


def limited(count: int = 2, **others: Any) -> World:
    return World(gpus(count), settings(policies={"ONE": ONE}, queue_limit=99, **others))


def test_no_more_leases_of_a_task_type_than_its_policy_allows() -> None:
    world = limited()
    first = world.acquire("ONE", "a")
    second = world.acquire("ONE", "b")
    other = world.acquire("ASR", "c")
    assert second.queued.reason is WaitReason.CONCURRENCY_LIMIT
    assert other.held
    world.release(first)
    assert second.held


def test_a_free_slot_goes_on_when_the_next_in_line_is_absent() -> None:
    world = limited(1)
    holder = world.acquire("ONE", "a")
    absent = world.acquire("ONE", "b", request_id="b")
    last = world.acquire("ONE", "c")
    world.hang_up(absent)
    world.release(holder)
    assert last.held


def test_a_free_slot_goes_on_when_the_next_in_line_wants_another_gpu() -> None:
    world = limited(2)
    other = world.acquire("ASR", "other", candidates=("gpu:0",))
    holder = world.acquire("ONE", "a", candidates=("gpu:1",))
    busy = world.acquire("ONE", "b", candidates=("gpu:0",))
    free = world.acquire("ONE", "c", candidates=("gpu:1",))
    world.release(holder)
    assert free.held
    assert world.reason(busy) is WaitReason.CONCURRENCY_LIMIT
    world.release(free)
    assert world.reason(busy) is WaitReason.GPU_BUSY
    world.release(other)
    assert busy.held


def test_a_free_slot_goes_on_when_the_next_in_line_is_at_another_limit() -> None:
    world = World(gpus(4), settings(policies={"ONE": ONE}, leases_per_client=2, queue_limit=99))
    holder = world.acquire("ONE", "a")
    greedy = world.acquire("ONE", "b")
    last = world.acquire("ONE", "c")
    kept = [world.acquire("ASR", "b") for _ in range(2)]
    world.release(holder)
    assert last.held
    assert greedy.waiting
    world.release(last)
    assert world.reason(greedy) is WaitReason.CONCURRENCY_LIMIT
    world.release(kept[0])
    assert greedy.held


def test_a_free_slot_goes_on_when_the_next_in_line_waits_for_its_sequence() -> None:
    world = limited(2)
    blocker = world.acquire("ASR", "other", candidates=("gpu:0",))
    holder = world.acquire("ONE", "a", candidates=("gpu:1",))
    higher = world.acquire("ONE", "b", sequence=("talk", 1), candidates=("gpu:1",))
    last = world.acquire("ONE", "c", candidates=("gpu:1",))
    lower = world.acquire("ONE", "b", sequence=("talk", 0), candidates=("gpu:0",))
    world.release(holder)
    assert last.held
    assert [higher.waiting, lower.waiting] == [True, True]
    world.release(last)
    world.release(blocker)
    world.release(lower)
    assert higher.held


def test_a_free_slot_goes_on_when_the_next_in_line_leaves_or_steps_back() -> None:
    world = limited(1)
    holder = world.acquire("ONE", "a")
    waiting = [world.acquire("ONE", f"w{n}", request_id="r", priority=50 - n) for n in range(3)]
    blocker = world.acquire("ASR", "blocker", priority=100)
    world.release(holder)
    assert blocker.held
    # The first was let through for the slot, and lacks room; now it goes behind the others.
    waiting[0] = world.again(waiting[0], priority=0)
    assert waiting[0].queued.position == 3
    world.cancel(waiting[1])
    world.release(blocker)
    assert waiting[2].held
    world.release(waiting[2])
    assert waiting[0].held


def test_both_slots_that_one_death_frees_are_taken() -> None:
    policy = replace(PATIENT, max_concurrent_leases=2, sharing=Sharing.SHARED)
    world = World(settings_=settings(policies={"TWO": policy}, queue_limit=99))
    holders = [world.acquire("TWO", "a", process=pid(7)) for _ in range(2)]
    waiting = [world.acquire("TWO", "b") for _ in range(3)]
    world.die(pid(7))
    assert all(holder.last for holder in holders)
    assert [stream.held for stream in waiting] == [True, True, False]


def test_a_changed_limit_counts_for_those_who_wait() -> None:
    world = limited(3)
    world.acquire("ONE", "a")
    waiting = [world.acquire("ONE", "b") for _ in range(2)]
    world.configure(policies={"ONE": replace(ONE, max_concurrent_leases=2)})
    assert [stream.held for stream in waiting] == [True, False]
    world.configure(policies={"ONE": replace(ONE, max_concurrent_leases=0)})
    assert waiting[1].held
    world.configure(policies={"ONE": ONE})
    assert all(stream.held for stream in waiting)  # nobody is thrown out
    assert world.acquire("ONE", "c").waiting


def test_the_limit_of_a_task_type_leaves_nothing_behind() -> None:
    world = limited(1)
    holder = world.acquire("ONE", "a")
    waiting = world.acquire("ONE", "b")
    world.cancel(waiting)
    world.release(holder)
    assert not world.state.gates._tasks
    assert not world.state.gates._clients


# -- limits of a client --


def test_a_client_at_its_limit_of_leases_waits_without_holding_others_back() -> None:
    world = World(gpus(3), settings(leases_per_client=1))
    holder = world.acquire("ASR", "blocker", count=3)
    first, second = world.acquire(client="a"), world.acquire(client="a")
    other = world.acquire(client="b", priority=0)
    world.release(holder)
    assert first.held
    assert second.waiting
    assert other.held
    assert world.reason(second) is WaitReason.CONCURRENCY_LIMIT
    world.release(first)
    assert second.held


# -- absence --


def test_a_request_without_its_stream_is_granted_nothing_and_holds_nobody_back() -> None:
    world = World()
    holder = world.acquire()
    absent = world.acquire(client="a", request_id="r", priority=100)
    present = world.acquire(client="b")
    world.hang_up(absent)
    world.release(holder)
    assert present.held
    assert not absent.granted
    back = world.again(absent)
    assert back.queued.position == 1
    world.release(present)
    assert back.held


def test_who_joins_is_granted_at_once_if_there_is_room() -> None:
    world = World()
    holder = world.acquire()
    absent = world.acquire(client="a", request_id="r")
    world.hang_up(absent)
    world.release(holder)
    back = world.again(absent)
    assert back.held
    assert not back.of(type(absent.queued))


# -- GPUs out of service --


def test_too_few_candidates_in_service_gate_a_request() -> None:
    world = World(gpus(2))
    world.drain("gpu:0")
    on_drained = world.acquire(client="a", candidates=("gpu:0",), priority=100)
    both = world.acquire(client="b", count=2, priority=99)
    other = world.acquire(client="c")
    assert on_drained.queued.reason is WaitReason.DRAINING
    assert both.queued.reason is WaitReason.DRAINING
    assert other.on == ("gpu:1",)
    world.resume("gpu:0")
    assert on_drained.held
    assert world.reason(both) is WaitReason.GPU_BUSY


def test_a_lost_gpu_gates_those_who_need_it() -> None:
    world = World(gpus(2, monitored=True))
    for key in ("gpu:0", "gpu:1"):
        world.show(key)
    world.lose("gpu:0")
    both = world.acquire(client="b", count=2, priority=99)
    other = world.acquire(client="c", memory=GIB)
    assert both.queued.reason is WaitReason.GPU_UNHEALTHY
    assert other.on == ("gpu:1",)
    world.release(other)
    world.show("gpu:0")
    assert both.held


def test_lost_and_drained_together_count_as_drained() -> None:
    world = World(gpus(2))
    world.lose("gpu:0")
    world.drain("gpu:1")
    assert world.acquire().queued.reason is WaitReason.DRAINING


def test_a_gate_of_a_crowd_that_closes_again_costs_one_look_a_lane() -> None:
    """White box: whoever is not needed stays parked."""
    world = limited(1)
    holder = world.acquire("ONE", "a")
    waiting = [world.acquire("ONE", f"c{n}") for n in range(50)]
    assert all(stream.waiting for stream in waiting)
    world.release(holder)
    gate = world.state.gates._tasks["ONE"]
    assert len(gate.parked()) == 49
    (lane,) = world.state.queue.lanes
    assert len(lane.ready) == 0


def test_a_policy_without_limit_has_no_gate() -> None:
    world = World(gpus(3), settings(policies={"FREE": Policy(max_concurrent_leases=0)}))
    assert all(world.acquire("FREE").held for _ in range(3))
