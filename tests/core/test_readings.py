"""What a reading's age decides."""

from dataclasses import replace

import pytest

from core.world import GIB, NO_HEADROOM, World, gpus, settings
from gpuarbiter_server.core import effects as fx
from gpuarbiter_server.core import events as ev
from gpuarbiter_server.core.errors import ArbiterError, ErrorReason
from gpuarbiter_server.core.model import EventType, GpuHealth, WaitReason

REFUSE = replace(NO_HEADROOM, refuse_when_stale=True)


def test_nothing_is_granted_before_the_first_reading() -> None:
    world = World(gpus(monitored=True))
    waiting = world.acquire()
    assert waiting.queued.reason is WaitReason.NO_READING
    assert world.gpu().health is GpuHealth.STALE
    world.advance(1)
    world.read()
    assert waiting.held
    assert world.gpu().health is GpuHealth.OK


def test_or_before_it_is_two_seconds_late() -> None:
    world = World(gpus(monitored=True))
    waiting = world.acquire()
    world.advance(1.875)
    assert waiting.waiting
    world.advance(0.125)
    assert waiting.held
    assert world.gpu().health is GpuHealth.STALE


def test_an_unmonitored_gpu_needs_no_reading() -> None:
    world = World()
    assert world.acquire().held
    assert world.gpu().health is GpuHealth.UNMONITORED
    assert world.arbiter.next_deadline() is None


def test_a_stale_reading_keeps_the_last_figure_and_declarations_decide() -> None:
    world = World(gpus(monitored=True))
    world.read(used=10 * GIB)
    world.advance(1.875)
    assert world.gpu().health is GpuHealth.OK
    world.advance(0.125)
    assert world.gpu().health is GpuHealth.STALE
    assert world.gpu().unleased_bytes == 10 * GIB
    first, second = world.shared(14 * GIB), world.shared(GIB)
    assert first.held
    assert second.queued.reason is WaitReason.MEMORY
    assert world.gpu().unleased_bytes == 10 * GIB
    world.release(first)
    assert second.held


def test_on_stale_refuse_grants_nothing_until_there_is_a_reading() -> None:
    world = World(gpus(monitored=True), settings(memory=REFUSE))
    world.advance(5)
    waiting = world.acquire()
    assert waiting.queued.reason is WaitReason.NO_READING
    world.read()
    assert waiting.held


def test_a_reading_that_took_too_long_is_stale_when_it_comes() -> None:
    world = World(gpus(monitored=True), settings(memory=REFUSE))
    world.advance(30)
    waiting = world.acquire()
    world.read(used=0, at=world.now - 2)
    assert waiting.waiting
    assert world.gpu().health is GpuHealth.STALE
    world.read(used=0, at=world.now - 1)
    assert waiting.held
    world.advance(1)
    assert world.gpu().health is GpuHealth.STALE


def test_a_lease_does_not_grow_by_a_stale_reading_where_the_policy_is_to_refuse() -> None:
    world = World(gpus(monitored=True), settings(memory=REFUSE))
    world.read()
    lease = world.shared(4 * GIB)
    world.advance(2)
    with pytest.raises(ArbiterError, match="no current reading") as refusal:
        world.resize(lease.lease_id, 5 * GIB)
    assert refusal.value.reason is ErrorReason.RESIZE_REFUSED
    world.resize(lease.lease_id, 3 * GIB)
    world.read()
    world.resize(lease.lease_id, 5 * GIB)


def test_every_reading_wakes_those_who_wait() -> None:
    world = World(gpus(2, monitored=True))
    world.read("gpu:0", 20 * GIB)
    waiting = world.shared(10 * GIB)
    assert waiting.queued.reason is WaitReason.MEMORY
    world.read("gpu:1", 0)
    assert waiting.on == ("gpu:1",)


def test_the_limits_of_age_are_settings() -> None:
    world = World(gpus(monitored=True), settings(memory=replace(NO_HEADROOM, stale_after=10.0)))
    world.read()
    world.advance(9)
    assert world.gpu().health is GpuHealth.OK
    world.advance(1)
    assert world.gpu().health is GpuHealth.STALE


# -- lost GPUs --


def test_a_lost_gpu_keeps_its_leases_and_takes_no_new_ones() -> None:
    world = World(gpus(monitored=True))
    world.show()
    holder = world.shared(GIB, max_hold=10)
    world.lose()
    assert holder.held
    assert world.gpu().health is GpuHealth.LOST
    (lost,) = world.recorded(EventType.GPU_LOST)
    assert (lost.gpus, lost.detail) == (("gpu:0",), "fell off the bus")
    refused = world.shared(GIB)
    assert refused.error.reason is ErrorReason.GPU_UNAVAILABLE
    assert "gpu:0 is lost: fell off the bus" in refused.error.message
    assert world.renew(holder.lease_id).hold_remaining == 10
    world.release(holder)


def test_who_waits_when_a_gpu_is_lost_waits_on_and_is_granted_when_it_is_back() -> None:
    world = World(gpus(monitored=True))
    world.show()
    holder = world.acquire()
    waiting = world.acquire()
    world.lose()
    world.lose()
    assert len(world.recorded(EventType.GPU_LOST)) == 1
    world.release(holder)
    assert world.reason(waiting) is WaitReason.GPU_UNHEALTHY
    world.advance(60)
    assert world.reason(waiting) is WaitReason.GPU_UNHEALTHY
    world.show()
    assert waiting.held
    assert world.recorded(EventType.GPU_RESTORED)[0].gpus == ("gpu:0",)
    assert world.gpu().health is GpuHealth.OK


def test_the_other_gpus_go_on() -> None:
    world = World(gpus(2, monitored=True))
    world.show("gpu:0")
    world.show("gpu:1")
    world.lose("gpu:0")
    assert world.acquire().on == ("gpu:1",)
    assert world.acquire().queued.reason is WaitReason.GPU_BUSY


def test_a_driver_that_comes_and_goes_is_shown() -> None:
    world = World(gpus(monitored=True))
    assert world.snapshot().nvml_up is False
    before = world.arbiter.revision
    world.send(ev.DriverChanged(up=True))
    assert world.snapshot().nvml_up is True
    assert world.arbiter.revision == before + 1
    world.send(ev.DriverChanged(up=False, detail="gone"))
    assert world.snapshot().nvml_up is False


def test_the_sampler_is_told_only_what_changed() -> None:
    world = World(gpus(2, monitored=True))
    for key in ("gpu:0", "gpu:1"):
        world.show(key, 20 * GIB)
    first = world.shared(10 * GIB, candidates=("gpu:0",))
    assert world.fast == {"gpu:0"}
    second = world.shared(10 * GIB, candidates=("gpu:0",))
    assert world.count(fx.SampleFast) == 0
    anywhere = world.shared(10 * GIB)
    assert world.fast == {"gpu:0", "gpu:1"}
    for stream in (first, second, anywhere):
        world.cancel(stream)
    assert world.fast == frozenset()
