"""The state in figures: everybody is counted once on each GPU that is theirs or may be."""

from core.world import GIB, PATIENT, World, gpus, settings
from gpuarbiter_server.core.census import Leases, Waiters
from gpuarbiter_server.core.events import GpuFailed
from gpuarbiter_server.core.model import LeaseState, ProcessId, WaitReason

BOTH = frozenset({"gpu:0", "gpu:1"})


def initial(task_type: str) -> str:
    """Names of task types that some share."""
    return task_type[0]


def test_waiting_requests_are_counted_by_name_lane_and_reason() -> None:
    world = World(gpus(2), settings(policy=PATIENT))
    for key in BOTH:
        world.acquire(candidates=(key,))
    began = world.now
    world.acquire(task_type="LOW", candidates=("gpu:0",))
    world.advance(1.0)
    world.acquire(task_type="LATE", candidates=("gpu:0",))
    world.acquire(task_type="HIGH", priority=9)
    found = world.arbiter.census(world.now).waiters(initial, 10)
    assert sorted(found, key=lambda group: group.task) == [
        Waiters("H", BOTH, WaitReason.GPU_BUSY, 1, began + 1.0),
        Waiters("L", frozenset({"gpu:0"}), WaitReason.GPU_BUSY, 2, began),
    ]


def test_those_far_back_are_counted_where_they_wait() -> None:
    world = World(gpus(2), settings(policy=PATIENT))
    world.acquire(count=2)
    for number in range(4):
        world.acquire(task_type="T", client=f"c{number}")
    world.acquire(task_type="T", client="other", candidates=("gpu:1",))
    told_apart, *behind = world.arbiter.census(world.now).waiters(initial, 1)
    assert (told_apart.task, told_apart.number) == ("T", 1)
    assert sorted(behind, key=lambda group: group.number) == [
        Waiters("", frozenset({"gpu:1"}), WaitReason.QUEUE_ORDER, 1, None),
        Waiters("", BOTH, WaitReason.QUEUE_ORDER, 3, None),
    ]
    assert world.arbiter.census(world.now).waiters(initial, 0)[0].task == ""


def test_leases_are_counted_on_each_of_their_gpus_with_their_memory() -> None:
    world = World(gpus(2))
    began = world.now
    world.acquire(task_type="A", count=2)
    assert world.arbiter.census(world.now).leases(initial) == [
        Leases("A", key, LeaseState.HELD, 1, began, None, 0) for key in ("gpu:0", "gpu:1")
    ]


def test_memory_is_what_is_seen_or_else_what_was_declared() -> None:
    world = World()
    began = world.now
    world.shared(2 * GIB, task_type="A1")
    world.advance(1.0)
    world.shared(3 * GIB, task_type="A2", client="c2")
    (group,) = world.arbiter.census(world.now).leases(initial)
    assert group == Leases("A", "gpu:0", LeaseState.HELD, 2, began, None, 5 * GIB)


def test_memory_that_is_seen_is_added_up_apart() -> None:
    world = World(gpus(1, monitored=True))
    world.show(used=0, processes={})
    began = world.now
    for number in (1, 2):
        world.shared(4 * GIB, task_type="A", client=f"c{number}", process=ProcessId(number, 1))
    world.shared(1 * GIB, task_type="A", client="c3")
    world.show(used=5 * GIB, processes={ProcessId(1, 1): 2 * GIB, ProcessId(2, 1): 3 * GIB})
    (group,) = world.arbiter.census(world.now).leases(initial)
    assert group == Leases("A", "gpu:0", LeaseState.HELD, 3, began, 5 * GIB, GIB)


def test_leases_one_by_one_are_bounded() -> None:
    world = World()
    for number in range(3):
        world.shared(GIB, client=f"c{number}")
    census = world.arbiter.census(world.now)
    assert [len(census.lease_views(most)) for most in (0, 2, 5)] == [0, 2, 3]
    assert [gpu.spec.key for gpu in census.gpus()] == ["gpu:0"]
    assert census.nvml_up == world.snapshot().nvml_up


def test_requests_and_leases_are_shown_one_by_one_up_to_a_number() -> None:
    world = World(gpus(1), settings(policy=PATIENT))
    world.acquire(client="first")
    for number in range(3):
        world.acquire(client=f"c{number}", priority=number)
    census = world.arbiter.census(world.now)
    assert [ticket.holder.client_id for ticket in census.each_ticket(2)] == ["c2", "c1"]
    (lease,) = census.lease_views(5)
    assert census.is_live(lease.lease_id)
    assert not census.is_live("another")
    assert (census.lease_count, census.queue_length, census.shutting_down, census.journal_fault) == (1, 3, False, "")


def test_who_is_gone_before_their_turn_is_left_out() -> None:
    world = World(gpus(2), settings(policy=PATIENT))
    held = [world.acquire(client=f"holder-{number}") for number in range(2)]
    waiting = [world.acquire(client=f"waiter-{number}") for number in range(2)]
    census = world.arbiter.census(world.now)
    leases, tickets = census.each_lease(5), census.each_ticket(5)
    assert (next(leases).holder.client_id, next(tickets).holder.client_id) == ("holder-0", "waiter-0")
    world.cancel(waiting[1])
    world.release(held[1])
    assert [*leases, *tickets] == []


def test_a_gpu_that_is_out_of_service_says_why() -> None:
    world = World(gpus(1))
    assert world.arbiter.census(world.now).gpus()[0].out_of_service == ""
    world.drain("gpu:0", reason="a new fan")
    assert world.arbiter.census(world.now).gpus()[0].out_of_service == "a new fan"
    world.send(GpuFailed("gpu:0", "it fell off the bus"))
    assert world.arbiter.census(world.now).gpus()[0].out_of_service == "it fell off the bus"
