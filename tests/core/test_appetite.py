"""Who ran out of memory declares more the next time, where the policy says so."""

from dataclasses import replace

from core.world import GIB, PATIENT, World, gpus, pid, settings
from gpuarbiter_server.core import appetite
from gpuarbiter_server.core.appetite import Appetites, Eater
from gpuarbiter_server.core.model import EventType, Identity, Sharing, WorkDevice, WorkReport, WorkResult

OOM = WorkReport(WorkResult.OUT_OF_MEMORY, WorkDevice.GPU)
RAISES = replace(PATIENT, raise_after_out_of_memory=True, sharing=Sharing.SHARED)


def declared(world: World, memory: int, client: str = "c1", task_type: str = "ASR") -> int:
    stream = world.acquire(task_type, client, memory=memory)
    world.release(stream)
    return stream.lease.gpus[0].declared_bytes


def test_the_next_declaration_is_a_quarter_over_the_peak() -> None:
    world = World(settings_=settings(RAISES))
    stream = world.acquire(memory=4 * GIB)
    world.release(stream, report=replace(OOM, peak_memory_bytes=8 * GIB))
    assert declared(world, 4 * GIB) == 10 * GIB
    assert declared(world, 12 * GIB) == 12 * GIB
    assert declared(world, 0) == 0
    assert declared(world, 4 * GIB, client="c2") == 4 * GIB
    assert declared(world, 4 * GIB, task_type="NMT") == 4 * GIB


def test_without_a_peak_it_goes_by_the_declaration() -> None:
    world = World(settings_=settings(RAISES))
    world.release(world.acquire(memory=4 * GIB), report=OOM)
    assert declared(world, 4 * GIB) == 5 * GIB


def test_it_is_never_more_than_there_is() -> None:
    world = World(settings_=settings(RAISES))
    world.release(world.acquire(memory=4 * GIB), report=replace(OOM, peak_memory_bytes=23 * GIB))
    assert declared(world, 4 * GIB) == 24 * GIB


def test_unless_the_policy_says_so_nothing_is_raised() -> None:
    world = World()
    world.release(world.acquire(memory=4 * GIB), report=OOM)
    assert declared(world, 4 * GIB) == 4 * GIB


def seen_to_die(used: int | None) -> WorkReport | None:
    world = World(gpus(monitored=True), settings(RAISES))
    world.read("gpu:0", 0, {})
    world.acquire(memory=4 * GIB, process=pid(7))
    neighbour = world.acquire(client="c2", memory=4 * GIB, process=pid(8))
    world.read("gpu:0", used, None)
    world.die(pid(7))
    assert neighbour.held
    return world.recorded(EventType.ENDED)[-1].report


def test_who_dies_on_a_full_gpu_is_seen_to_have_run_out_of_memory() -> None:
    assert seen_to_die(24 * GIB) == OOM


def test_who_dies_on_one_with_room_is_not() -> None:
    assert seen_to_die(20 * GIB) is None


def test_who_dies_unseen_is_not() -> None:
    assert seen_to_die(None) is None


def test_what_is_remembered_is_bounded() -> None:
    appetites = Appetites()
    for number in range(appetite._REMEMBERED + 1):
        appetites.ran_out(Eater(Identity("local", str(number)), "ASR"), GIB)
    assert appetites.least(Eater(Identity("local", "0"), "ASR")) == 0
    assert appetites.least(Eater(Identity("local", "1"), "ASR")) == int(1.25 * GIB)
