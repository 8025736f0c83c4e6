"""The memory ledger of a GPU: what may be promised beside what is promised and what is seen."""

from dataclasses import replace
from typing import Any

import pytest

from core.world import GIB, MIB, World, gpus, pid, seen, settings
from gpuarbiter_server.core.model import EventType, GpuSpec, MemoryVerdict, Sharing, WaitReason
from gpuarbiter_server.core.policy import Memory, Policy

P, Q, STRANGER, CHILD = pid(10), pid(20), pid(66), pid(11)
WATCHED = gpus(monitored=True)


def watched(**others: Any) -> World:
    return World(WATCHED, settings(**others))


# -- headroom and capacity --


@pytest.mark.parametrize(
    ("total", "headroom"),
    [(8 * GIB, 512 * MIB), (100 * GIB, 2 * GIB), (256 * MIB, 256 * MIB)],
    ids=["at least", "2 %", "never more than there is"],
)
def test_headroom_is_512_mib_or_2_percent(total: int, headroom: int) -> None:
    world = World(gpus(total=total), settings(memory=Memory()))
    assert world.gpu().headroom_bytes == headroom
    assert world.gpu().admissible_bytes == total - headroom


def test_the_memory_that_the_driver_keeps_comes_on_top() -> None:
    spec = replace(gpus()[0], reserved_bytes=300 * MIB)
    world = World((spec,), settings(memory=Memory(headroom_bytes=GIB)))
    assert world.gpu().headroom_bytes == GIB + 300 * MIB


def test_a_changed_headroom_counts_at_once() -> None:
    world = World()
    waiting = [world.shared(12 * GIB), world.shared(12 * GIB), world.shared(6 * GIB)]
    assert [stream.held for stream in waiting] == [True, True, False]
    world.configure(memory=Memory(headroom_bytes=4 * GIB))
    assert world.gpu().admissible_bytes == 0
    world.release(waiting[0])
    assert waiting[2].held
    assert world.gpu().admissible_bytes == 2 * GIB


# -- by declarations --


def test_shared_leases_stand_side_by_side_while_their_declarations_fit() -> None:
    world = World()
    first, second = world.shared(16 * GIB), world.shared(8 * GIB)
    third = world.shared(1)
    assert second.held
    assert third.queued.reason is WaitReason.MEMORY
    assert world.gpu().committed_bytes == 24 * GIB
    world.release(first)
    assert third.held
    assert world.gpu().committed_bytes == 8 * GIB + 1


def test_an_exclusive_lease_is_alone() -> None:
    world = World()
    shared = world.shared(1)
    exclusive = world.acquire(sharing=Sharing.EXCLUSIVE, memory=1)
    assert exclusive.queued.reason is WaitReason.GPU_BUSY
    world.release(shared)
    assert exclusive.held
    assert world.shared(1).queued.reason is WaitReason.GPU_BUSY


def test_an_exclusive_request_without_a_declaration_commits_all_that_is_left() -> None:
    world = watched()
    world.show(used=20 * GIB, processes={STRANGER: 20 * GIB})
    lease = world.acquire()
    assert lease.held
    assert lease.lease.gpus[0].declared_bytes == 0
    assert lease.lease.gpus[0].committed_bytes == 4 * GIB
    assert world.gpu().admissible_bytes == 0


def test_a_shared_request_without_a_declaration_is_counted_by_what_it_uses() -> None:
    world = watched()
    world.show(used=0, processes={})
    lease = world.shared(0, process=P)
    world.show(used=10 * GIB, processes={P: 10 * GIB})
    assert lease.held
    assert world.gpu().committed_bytes == 11 * GIB
    assert world.gpu().unleased_bytes == 0


def test_the_policy_declares_what_a_request_does_not() -> None:
    policy = Policy(memory_bytes=20 * GIB, sharing=Sharing.SHARED, max_wait=None, max_hold=0)
    world = World(settings_=settings(policies={"LLM": policy}))
    assert world.acquire("LLM").lease.gpus[0].declared_bytes == 20 * GIB
    assert world.acquire("LLM").queued.reason is WaitReason.MEMORY
    assert world.acquire("LLM", memory=4 * GIB).waiting  # in its turn
    assert world.gpu().committed_bytes == 20 * GIB


# -- by readings --


def test_memory_of_others_is_not_there_to_be_promised() -> None:
    world = watched()
    world.show(used=10 * GIB, processes={STRANGER: 10 * GIB})
    assert world.gpu().unleased_bytes == 10 * GIB
    large = world.shared(15 * GIB)
    assert large.queued.reason is WaitReason.MEMORY
    assert world.fast == {"gpu:0"}
    world.show(used=9 * GIB, processes={STRANGER: 9 * GIB})
    assert large.held
    assert world.fast == frozenset()


def test_a_promise_counts_before_it_is_used_and_not_twice_when_it_is() -> None:
    world = watched()
    world.show(used=0, processes={})
    world.shared(10 * GIB, process=P)
    assert world.gpu().admissible_bytes == 14 * GIB
    world.show(used=6 * GIB, processes={P: 6 * GIB})
    assert world.gpu().admissible_bytes == 14 * GIB
    assert world.gpu().unleased_bytes == 0


def test_what_grows_beyond_its_declaration_is_counted_at_its_peak_and_a_tenth() -> None:
    world = watched()
    world.show(used=0, processes={})
    lease = world.shared(10 * GIB, request_id="r", process=P)
    world.show(used=20 * GIB, processes={P: 20 * GIB})
    assert world.gpu().committed_bytes == 22 * GIB
    (overuse,) = world.recorded(EventType.MEMORY_OVERUSE)
    assert overuse.lease_id == lease.lease_id
    assert str(10 * GIB) in overuse.detail
    # The peak stays, and it is said once.
    world.show(used=5 * GIB, processes={P: 5 * GIB})
    world.show(used=15 * GIB, processes={P: 15 * GIB})
    assert world.gpu().committed_bytes == 22 * GIB
    assert len(world.recorded(EventType.MEMORY_OVERUSE)) == 1
    view = world.snapshot().leases[0].gpus[0]
    assert (view.observed_bytes, view.observed_peak_bytes) == (15 * GIB, 20 * GIB)
    released = world.release(lease)
    assert released.memory_verdict is MemoryVerdict.OVER
    assert released.memory_peak_bytes == 20 * GIB


@pytest.mark.parametrize(
    ("used", "verdict"),
    [(4, MemoryVerdict.UNDER), (5, MemoryVerdict.WITHIN), (10, MemoryVerdict.WITHIN), (11, MemoryVerdict.OVER)],
)
def test_a_released_lease_says_how_its_declaration_compared(used: int, verdict: MemoryVerdict) -> None:
    world = watched()
    world.show(used=0, processes={})
    lease = world.shared(10 * GIB, process=P)
    world.show(used=used * GIB, processes={P: used * GIB})
    assert world.release(lease).memory_verdict is verdict


def test_without_a_declaration_or_a_reading_there_is_no_verdict() -> None:
    world = World()
    assert world.release(world.shared(GIB)).memory_verdict is MemoryVerdict.UNSPECIFIED
    assert world.release(world.acquire()).memory_peak_bytes is None


def test_descendants_count_as_their_holder_also_after_its_child_died() -> None:
    world = watched()
    world.show(used=0, processes=[])
    world.shared(10 * GIB, process=P)
    grandchild = pid(12)
    world.show(used=2 * GIB, processes=[seen(grandchild, 2 * GIB, CHILD, P)])
    assert world.gpu().unleased_bytes == 0
    # Its parent is gone, and init adopted it.
    world.show(used=2 * GIB, processes=[seen(grandchild, 2 * GIB, pid(1))])
    assert world.gpu().unleased_bytes == 0
    assert world.gpu().owners == ((grandchild, world.snapshot().leases[0].lease_id),)


def test_descendants_that_were_seen_elsewhere_count_too() -> None:
    world = watched()
    world.show(used=0, processes={})
    world.shared(10 * GIB, process=P)
    world.spawn(P, CHILD)
    world.spawn(P, CHILD)
    world.show(used=3 * GIB, processes={CHILD: 3 * GIB})
    assert world.gpu().unleased_bytes == 0
    # What descends from a known descendant does so too.
    world.show(used=4 * GIB, processes=[seen(pid(13), 4 * GIB, CHILD)])
    assert world.gpu().unleased_bytes == 0


def test_nested_holders_the_nearest_counts() -> None:
    world = watched()
    world.show(used=0, processes={})
    outer = world.shared(8 * GIB, "outer", process=P)
    inner = world.shared(8 * GIB, "inner", process=CHILD)
    world.spawn(P, CHILD)
    world.show(used=5 * GIB, processes=[seen(CHILD, 3 * GIB, P), seen(P, 2 * GIB)])
    shown = {lease.holder.client_id: lease.gpus[0].observed_bytes for lease in world.snapshot().leases}
    assert shown == {"outer": 2 * GIB, "inner": 3 * GIB}
    assert outer.held
    assert inner.held


def test_leases_of_one_process_split_what_it_uses_by_their_declarations() -> None:
    world = watched()
    world.show(used=0, processes={})
    world.shared(2 * GIB, process=P)
    world.shared(6 * GIB, process=P)
    world.show(used=4 * GIB, processes={P: 4 * GIB})
    observed = [lease.gpus[0].observed_bytes for lease in world.snapshot().leases]
    assert observed == [GIB, 3 * GIB]
    assert world.gpu().unleased_bytes == 0


# -- without a pid --


def test_a_lease_without_a_pid_counts_as_using_what_it_declared() -> None:
    world = watched()
    world.show(used=0)
    lease = world.shared(10 * GIB)
    world.show(used=13 * GIB)
    assert world.gpu().unleased_bytes == 3 * GIB
    assert world.gpu().admissible_bytes == 11 * GIB
    assert lease.lease.gpus[0].observed_bytes is None


def test_a_lease_without_a_pid_does_not_claim_what_was_there_before_it() -> None:
    world = watched()
    world.show(used=8 * GIB, processes={STRANGER: 8 * GIB})
    world.shared(10 * GIB)
    assert world.gpu().unleased_bytes == 8 * GIB
    assert world.gpu().admissible_bytes == 6 * GIB
    world.show(used=18 * GIB, processes={STRANGER: 8 * GIB, pid(77): 10 * GIB})
    assert world.gpu().unleased_bytes == 8 * GIB


def test_with_a_pid_and_without_beside_each_other() -> None:
    world = watched()
    world.show(used=2 * GIB, processes={P: 2 * GIB})
    named = world.shared(4 * GIB, "named", process=P)
    world.shared(4 * GIB, "unnamed")
    world.show(used=9 * GIB, processes={P: 3 * GIB, pid(77): 6 * GIB})
    assert world.gpu().unleased_bytes == 2 * GIB
    # The named one's memory stays its own when it has ended, not an outsider's.
    world.release(named)
    assert world.gpu().unleased_bytes == 2 * GIB


def test_where_the_driver_tells_no_memory_per_process_declarations_count() -> None:
    world = watched()
    world.show(used=2 * GIB, processes={P: None})
    world.shared(10 * GIB, process=P)
    world.show(used=10 * GIB, processes={P: None})
    assert world.gpu().unleased_bytes == 0
    assert world.gpu().owners == ((P, world.snapshot().leases[0].lease_id),)


def test_a_reading_without_memory_keeps_the_last_figure() -> None:
    world = watched()
    world.show(used=10 * GIB)
    world.show(used=None)
    assert world.gpu().unleased_bytes == 10 * GIB


# -- resident memory --


def test_what_the_requester_holds_already_is_part_of_its_declaration() -> None:
    world = watched()
    world.show(used=14 * GIB, processes={P: 14 * GIB})
    assert world.gpu().unleased_bytes == 14 * GIB
    assert world.shared(16 * GIB, "stranger", max_wait=0).error.metadata["wait_reason"] == "MEMORY"
    lease = world.shared(16 * GIB, process=P)
    assert lease.held
    assert world.gpu().unleased_bytes == 0
    assert world.gpu().committed_bytes == 16 * GIB


def test_who_holds_more_than_it_declares_needs_what_it_holds() -> None:
    world = watched()
    world.show(used=6 * GIB, processes={P: 6 * GIB})
    other = world.shared(18 * GIB, "other", process=Q)
    world.configure(memory=Memory(headroom_bytes=GIB))
    lease = world.shared(4 * GIB, process=P)
    assert lease.waiting
    world.release(other)
    world.look()
    assert lease.held
    assert world.gpu().committed_bytes == int(6 * GIB * 1.1)


def test_alone_with_more_than_it_declared_it_is_let_in() -> None:
    world = watched()
    world.show(used=23 * GIB, processes={P: 23 * GIB})
    assert world.shared(20 * GIB, process=P).held


def test_a_second_lease_of_a_process_brings_no_resident_memory_again() -> None:
    world = watched()
    world.show(used=10 * GIB, processes={P: 10 * GIB})
    assert world.shared(12 * GIB, process=P).held
    assert world.shared(13 * GIB, process=P, max_wait=0).error.metadata["wait_reason"] == "MEMORY"
    assert world.shared(12 * GIB, process=P).held


@pytest.mark.parametrize("process", [None, P], ids=["no pid", "no figures by pid"])
def test_resident_bytes_stand_in_where_no_pid_tells(process: object) -> None:
    world = watched()
    world.show(used=14 * GIB)
    lease = world.shared(16 * GIB, process=process, resident=14 * GIB)
    assert lease.held
    # But not for more than there is.
    world.release(lease)
    world.show(used=2 * GIB)
    world.shared(20 * GIB, "other", process=Q)
    assert world.shared(5 * GIB, resident=5 * GIB).waiting


def test_resident_bytes_of_leases_without_a_pid_are_no_outsiders() -> None:
    world = watched()
    world.show(used=5 * GIB, processes={STRANGER: 5 * GIB})
    world.shared(8 * GIB, resident=5 * GIB)
    assert world.gpu().unleased_bytes == 0


# -- several GPUs --


def test_memory_is_declared_for_each_gpu() -> None:
    world = World(gpus(2))
    lease = world.shared(16 * GIB, count=2)
    assert [grant.committed_bytes for grant in lease.lease.gpus] == [16 * GIB] * 2
    assert [gpu.admissible_bytes for gpu in world.snapshot().gpus] == [8 * GIB] * 2


def test_the_worst_gpu_gives_the_verdict() -> None:
    world = World(gpus(2, monitored=True))
    for key in ("gpu:0", "gpu:1"):
        world.show(key, 0, {})
    lease = world.shared(4 * GIB, count=2, process=P)
    world.show("gpu:0", GIB, {P: GIB})
    world.show("gpu:1", 5 * GIB, {P: 5 * GIB})
    released = world.release(lease)
    assert released.memory_verdict is MemoryVerdict.OVER
    assert released.memory_peak_bytes == 5 * GIB


def test_what_would_not_fit_on_an_empty_gpu_is_infeasible() -> None:
    specs = (*gpus(total=8 * GIB), GpuSpec("gpu:1", 1, 24 * GIB, monitored=False))
    world = World(specs)
    assert world.shared(20 * GIB).on == ("gpu:1",)
    assert world.shared(25 * GIB).error.metadata == {
        "memory_bytes": str(25 * GIB),
        "capacity_bytes": str(24 * GIB),
    }
    error = world.shared(20 * GIB, count=2).error
    assert error.reason.name == "INFEASIBLE"
    assert error.metadata["capacity_bytes"] == str(8 * GIB)
    assert "each of 2 empty GPUs" in error.message


def test_all_that_there_is_can_be_declared() -> None:
    world = World(gpus(2), settings(memory=Memory()))
    capacity = world.gpu().admissible_bytes
    assert world.shared(capacity, count=2).held
    assert world.shared(capacity + 1).error.reason.name == "INFEASIBLE"


def test_gpus_that_could_never_hold_it_are_no_candidates() -> None:
    specs = (*gpus(total=8 * GIB), GpuSpec("gpu:1", 1, 24 * GIB, monitored=False))
    world = World(specs)
    holder = world.acquire(candidates=("gpu:1",))
    waiting = world.shared(20 * GIB)
    assert world.snapshot().queue[0].candidates == ("gpu:1",)
    small = world.shared(GIB)
    assert small.on == ("gpu:0",)
    world.release(holder)
    assert waiting.on == ("gpu:1",)


def test_a_reading_from_before_the_grant_tells_nothing_of_the_lease() -> None:
    world = watched()
    world.show(processes={})
    world.advance(0.25)
    lease = world.shared(10 * GIB, process=P)
    assert world.snapshot().leases[0].gpus[0].observed_peak_bytes is None
    released = world.release(lease)
    assert released.memory_verdict is MemoryVerdict.UNSPECIFIED
    assert released.memory_peak_bytes is None
