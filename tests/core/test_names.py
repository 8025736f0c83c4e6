"""What a GPU can be called."""

import pytest

from core.world import GIB, World, gpus
from gpuarbiter_server.core.errors import ArbiterError, ErrorReason
from gpuarbiter_server.core.model import BusyPolicy, GpuSpec


@pytest.mark.parametrize("name", ["gpu:1", "1", "GPU-1"])
def test_by_key_by_index_and_by_uuid(name: str) -> None:
    world = World(gpus(3))
    assert world.acquire(candidates=(name,)).on == ("gpu:1",)
    assert world.snapshot(name).gpus[0].spec.key == "gpu:1"


def test_a_mig_instance_by_key_and_uuid_and_not_by_the_index_of_its_gpu() -> None:
    parent = GpuSpec("gpu:0", 0, 80 * GIB, "GPU-a", monitored=False)
    instances = [GpuSpec(f"gpu:1/{n}", 1, 10 * GIB, f"MIG-{n}", monitored=False, parent_uuid="GPU-b") for n in range(2)]
    world = World([parent, *instances])
    assert world.acquire(candidates=("gpu:1/1",)).on == ("gpu:1/1",)
    assert world.acquire(candidates=("MIG-0",)).on == ("gpu:1/0",)
    assert world.acquire(candidates=("0",)).on == ("gpu:0",)
    for name in ("1", "GPU-b"):
        assert world.acquire(candidates=(name,)).error.reason is ErrorReason.UNKNOWN_GPU


def test_keys_win_over_indices() -> None:
    specs = [GpuSpec("1", 0, GIB, monitored=False), GpuSpec("other", 1, GIB, monitored=False)]
    world = World(specs)
    assert world.acquire(candidates=("1",)).on == ("1",)
    assert world.acquire(candidates=("0",)).queued.queue_length == 1


def test_gpus_without_uuids() -> None:
    world = World([GpuSpec("a", 0, GIB, monitored=False), GpuSpec("b", 1, GIB, monitored=False)])
    assert world.acquire(candidates=("",)).error.reason is ErrorReason.UNKNOWN_GPU
    assert world.acquire(candidates=("1",)).on == ("b",)


def test_an_unknown_gpu_is_an_error_for_every_call_and_policy_and_changes_nothing() -> None:
    world = World(gpus(2))
    before = world.arbiter.revision
    stream = world.acquire(candidates=("gpu:0", "gpu:9"), busy=BusyPolicy.SKIP, request_id="r")
    assert stream.error.reason is ErrorReason.UNKNOWN_GPU
    assert stream.error.metadata == {"gpu": "gpu:9", "known": "gpu:0,gpu:1"}
    assert "no GPU is named 'gpu:9'; there are gpu:0, gpu:1" in stream.error.message
    for call in (
        lambda: world.check_fence("gpu:9", 1),
        lambda: world.drain("gpu:0", "gpu:9"),
        lambda: world.resume("gpu:9"),
        lambda: world.snapshot("gpu:9"),
    ):
        with pytest.raises(ArbiterError) as refusal:
            call()
        assert refusal.value.reason is ErrorReason.UNKNOWN_GPU
    assert world.arbiter.revision == before
    assert not any(gpu.cordoned for gpu in world.snapshot().gpus)
    assert world.arbiter.idle
