"""`enabled: false`: everything is granted at once, for comparison."""

from dataclasses import replace

from core.world import GIB, PATIENT, World, gpus, pid, settings
from gpuarbiter_server.core.errors import ErrorReason
from gpuarbiter_server.core.model import EventType, Placement, WaitReason


def disabled(count: int = 1) -> World:
    return World(gpus(count), settings(enabled=False, queue_limit=0, leases_per_client=1))


def test_every_request_is_granted_at_once() -> None:
    world = disabled()
    world.drain()
    streams = [world.acquire() for _ in range(3)]
    streams += [world.shared(100 * GIB), world.acquire(sequence=("talk", 2)), world.acquire(sequence=("talk", 1))]
    assert all(stream.held for stream in streams)
    tokens = [stream.lease.fencing_token for stream in streams]
    assert tokens == sorted(set(tokens))
    for stream in streams:
        world.release(stream)
    assert world.arbiter.idle


def test_also_without_a_reading_and_on_a_lost_gpu() -> None:
    world = World(gpus(monitored=True), settings(enabled=False))
    assert world.acquire().held
    world.lose()
    assert world.acquire().held


def test_placement_is_as_ever() -> None:
    world = disabled(2)
    assert [world.acquire().on[0] for _ in range(3)] == ["gpu:0", "gpu:1", "gpu:0"]
    turns = [world.acquire(placement=Placement.ROUND_ROBIN).on[0] for _ in range(2)]
    assert turns == ["gpu:1", "gpu:0"]
    assert world.acquire(count=2).on == ("gpu:1", "gpu:0")


def test_what_there_is_not_cannot_be_had() -> None:
    world = disabled()
    assert world.acquire(count=2).error.reason is ErrorReason.INFEASIBLE
    assert world.acquire(candidates=("gpu:7",)).error.reason is ErrorReason.UNKNOWN_GPU
    world.shut_down()
    assert world.acquire().error.reason is ErrorReason.SHUTDOWN


def test_who_waits_when_it_is_switched_off_is_granted() -> None:
    world = World(settings_=settings(policies={"ONE": replace(PATIENT, max_concurrent_leases=1)}))
    world.acquire("ONE")
    waiting = [world.acquire("ONE"), world.shared(30 * GIB // 2), world.acquire(count=1)]
    absent = world.acquire(request_id="r")
    world.hang_up(absent)
    world.configure(enabled=False)
    assert all(stream.held for stream in waiting)
    assert world.snapshot().queue_length == 1
    assert world.again(absent).held


def test_a_grant_that_comes_back_is_granted_to_whoever_joins() -> None:
    world = disabled()
    world.acquire(client="other")
    first = world.acquire(request_id="r")
    world.hang_up(first, delivered=False)
    assert world.again(first).held


def test_switched_on_again_it_knows_who_is_alone_and_who_is_not() -> None:
    world = disabled()
    first, second, third = world.acquire(), world.acquire(), world.shared(GIB)
    world.configure(enabled=True, leases_per_client=0, queue_limit=8)
    world.release(first)
    world.release(third)
    assert world.shared(GIB).queued.reason is WaitReason.GPU_BUSY
    world.release(second)
    assert world.snapshot().queue_length == 0


def test_one_cooldown_after_the_other_on_one_gpu() -> None:
    world = disabled()
    first, second = world.acquire(process=pid(1)), world.acquire(process=pid(2))
    world.hang_up(first)
    world.advance(5)
    assert world.watched == {pid(1), pid(2)}
    world.hang_up(second)
    assert world.watched == {pid(2)}
    assert world.gpu().cooldown_remaining == 15
    assert len(world.recorded(EventType.COOLDOWN_ENDED)) == 1
    world.advance(15)
    assert world.watched == set()
