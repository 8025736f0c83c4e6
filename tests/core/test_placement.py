"""Which GPUs a request gets where it has a choice, and several at once."""

from dataclasses import replace
from typing import Any

import pytest

from core.world import GIB, World, gpus, settings
from gpuarbiter_server.core.model import GpuSpec, Placement, Sharing, WaitReason


def placed(world: World, placement: Placement, *memory: int, **wishes: Any) -> list[str]:
    return [world.shared(size * GIB, placement=placement, **wishes).on[0] for size in memory]


def test_least_loaded_fewest_leases_then_most_room() -> None:
    world = World(gpus(3))
    assert placed(world, Placement.LEAST_LOADED, 8, 1, 2) == ["gpu:0", "gpu:1", "gpu:2"]
    # One lease on each: the most room wins.
    assert placed(world, Placement.LEAST_LOADED, 1, 1) == ["gpu:1", "gpu:2"]
    assert placed(world, Placement.LEAST_LOADED, 16) == ["gpu:0"]


def test_best_fit_the_fullest_that_still_fits() -> None:
    world = World(gpus(3))
    assert placed(world, Placement.BEST_FIT, 8, 8, 10, 10, 20) == ["gpu:0", "gpu:0", "gpu:1", "gpu:1", "gpu:2"]
    assert placed(world, Placement.BEST_FIT, 4, 4, 4) == ["gpu:1", "gpu:2", "gpu:0"]


def test_round_robin_each_in_turn() -> None:
    world = World(gpus(3))
    assert placed(world, Placement.ROUND_ROBIN, 1, 1, 1, 1) == ["gpu:0", "gpu:1", "gpu:2", "gpu:0"]
    world.drain("gpu:1")
    assert placed(world, Placement.ROUND_ROBIN, 1, 1, 1) == ["gpu:2", "gpu:0", "gpu:2"]
    assert world.shared(1, placement=Placement.ROUND_ROBIN, count=2).on == ("gpu:0", "gpu:2")
    assert placed(world, Placement.ROUND_ROBIN, 1) == ["gpu:0"]


def test_round_robin_over_mig_instances_that_share_an_index() -> None:
    specs = [GpuSpec(f"gpu:0/{n}", 0, 8 * GIB, f"MIG-{n}", monitored=False, parent_uuid="GPU-0") for n in range(3)]
    world = World(specs)
    assert placed(world, Placement.ROUND_ROBIN, 1, 1, 1, 1) == ["gpu:0/0", "gpu:0/1", "gpu:0/2", "gpu:0/0"]


def test_the_request_wins_over_the_configured_placement() -> None:
    world = World(gpus(2), settings(placement=Placement.BEST_FIT))
    assert placed(world, Placement.UNSPECIFIED, 1, 1) == ["gpu:0", "gpu:0"]
    assert placed(world, Placement.LEAST_LOADED, 1) == ["gpu:1"]


@pytest.mark.parametrize("names", [("gpu:1", "gpu:0"), ("GPU-1", "0"), ("1", "GPU-1", "gpu:0")])
def test_candidates_by_any_name_each_counted_once(names: tuple[str, ...]) -> None:
    world = World(gpus(3))
    lease = world.acquire(candidates=names, count=2)
    assert sorted(lease.on) == ["gpu:0", "gpu:1"]
    refused = world.acquire(candidates=names, count=3)
    assert refused.error.reason.name == "INFEASIBLE"
    assert refused.error.metadata == {"count": "3"}


def test_all_gpus_together_or_none() -> None:
    world = World(gpus(3))
    busy = world.acquire(candidates=("gpu:1",))
    three = world.acquire(count=3)
    assert three.queued.reason is WaitReason.GPU_BUSY
    assert [gpu.lease_ids for gpu in world.snapshot().gpus] == [(), (busy.lease_id,), ()]
    world.release(busy)
    assert three.on == ("gpu:0", "gpu:1", "gpu:2")
    assert [gpu.lease_ids for gpu in world.snapshot().gpus] == [(three.lease_id,)] * 3
    world.release(three)
    assert [gpu.lease_ids for gpu in world.snapshot().gpus] == [()] * 3


def test_a_request_for_several_collects_what_comes_free() -> None:
    world = World(gpus(2))
    holders = [world.acquire(candidates=(f"gpu:{n}",)) for n in range(2)]
    both = world.acquire(count=2)
    single = world.acquire()
    world.release(holders[0])
    assert both.waiting
    assert single.waiting
    assert world.reason(single) is WaitReason.QUEUE_ORDER
    world.release(holders[1])
    assert both.held
    world.release(both)
    assert single.held


def test_two_of_three_leaves_the_third_only_if_it_is_not_needed() -> None:
    world = World(gpus(3))
    busy = [world.acquire(candidates=(f"gpu:{n}",)) for n in range(2)]
    two = world.acquire(count=2)
    small = world.acquire(sharing=Sharing.SHARED, memory=1)
    assert two.waiting
    assert small.waiting  # gpu:2 is being collected
    world.release(busy[0])
    assert set(two.on) == {"gpu:0", "gpu:2"}
    world.release(busy[1])
    assert small.on == ("gpu:1",)


def test_one_token_for_all_gpus_of_a_lease() -> None:
    world = World(gpus(2))
    lease = world.acquire(count=2).lease
    assert world.check_fence("gpu:0", lease.fencing_token).current
    assert world.check_fence("GPU-1", lease.fencing_token).current


def test_a_gpu_without_index_of_its_own_still_has_a_place() -> None:
    specs = [replace(spec, index=0) for spec in gpus(2)]
    world = World(specs)
    assert placed(world, Placement.LEAST_LOADED, 1, 1) == ["gpu:0", "gpu:1"]
