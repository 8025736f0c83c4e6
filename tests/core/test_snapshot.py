"""What the arbiter shows of itself."""

from dataclasses import replace

from core.world import GIB, START, World, gpus, pid, settings
from gpuarbiter_server.core.model import EndReason, EventType, GpuHealth, LeaseState, Sharing, WaitReason, WorkContext


def test_a_lease_as_it_stands() -> None:
    world = World(gpus(2))
    context = WorkContext(job_id="job", attributes=(("a", "b"),))
    request = world.request("ASR", "c1", request_id="r", memory=GIB, max_hold=60, ttl=30, principal="p", priority=70)
    world.acquire(count=2)
    stream = world.ask_for(request)
    world.advance(4)
    world.release(lease_id=world.snapshot().leases[0].lease_id)
    stream = world.again(stream, context=context)
    world.advance(6)
    (lease,) = world.snapshot().leases
    assert lease.lease_id == stream.lease_id
    assert (lease.request_id, lease.task_type, lease.principal) == ("r", "ASR", "p")
    assert (lease.holder.client_id, lease.priority, lease.sharing) == ("c1", 70, Sharing.EXCLUSIVE)
    assert (lease.granted_at, lease.queue_wait) == (START + 4, 4.0)
    assert (lease.hold_remaining, lease.ttl_remaining, lease.ttl) == (54.0, 30.0, 30.0)
    assert (lease.state, lease.context) == (LeaseState.HELD, context)
    (grant,) = lease.gpus
    assert (grant.spec.key, grant.declared_bytes, grant.committed_bytes) == ("gpu:0", GIB, GIB)
    assert (grant.observed_bytes, grant.observed_peak_bytes) == (None, None)


def test_a_waiting_request_as_it_stands() -> None:
    world = World(gpus(2))
    world.acquire(count=2)
    context = WorkContext(session_id="talk")
    request = world.request(request_id="r", candidates=("1", "0"), count=2, memory=GIB, max_wait=9, priority=7)
    stream = world.again(world.ask_for(request), context=context)
    (ticket,) = world.snapshot().queue
    assert (ticket.request_id, ticket.task_type, ticket.priority, ticket.position) == ("r", "ASR", 7, 1)
    assert (ticket.enqueued_at, ticket.wait_deadline_at) == (START, START + 9)
    assert (ticket.memory_bytes, ticket.sharing, ticket.count) == (GIB, Sharing.EXCLUSIVE, 2)
    assert ticket.candidates == ("gpu:1", "gpu:0")
    assert ticket.reason is WaitReason.GPU_BUSY
    assert ticket.context == context
    assert stream.waiting


def test_an_endless_wait_has_no_deadline() -> None:
    world = World()
    world.acquire()
    world.acquire()
    assert world.snapshot().queue[0].wait_deadline_at is None


def test_a_gpu_as_it_stands() -> None:
    world = World(gpus(monitored=True), settings(queue_limit=3))
    world.show(used=5 * GIB, processes={pid(66): 3 * GIB, pid(7): 2 * GIB})
    lease = world.shared(10 * GIB, process=pid(7))
    world.shared(20 * GIB, process=pid(8))
    gpu = world.gpu()
    assert gpu.health is GpuHealth.OK
    assert (gpu.headroom_bytes, gpu.committed_bytes, gpu.unleased_bytes) == (0, 10 * GIB, 3 * GIB)
    assert gpu.admissible_bytes == 11 * GIB
    assert (gpu.queue_length, gpu.queue_limit) == (1, 3)
    assert gpu.lease_ids == (lease.lease_id,)
    assert gpu.owners == ((pid(7), lease.lease_id),)
    assert gpu.reading is not None
    assert gpu.reading.memory_used_bytes == 5 * GIB
    assert (gpu.cordoned, gpu.cooldown_remaining) == (False, None)


def test_memory_that_is_promised_twice_over_is_shown_as_none_left() -> None:
    world = World(gpus(monitored=True))
    world.show(processes={})
    world.shared(20 * GIB, process=pid(7))
    world.show(used=10 * GIB, processes={pid(66): 10 * GIB})
    assert world.gpu().admissible_bytes == 0


def test_some_gpus_and_some_tickets() -> None:
    world = World(gpus(3))
    world.acquire(count=3)
    for _ in range(5):
        world.acquire()
    snapshot = world.snapshot("2", "gpu:0", "GPU-2", max_tickets=2)
    assert [gpu.spec.key for gpu in snapshot.gpus] == ["gpu:2", "gpu:0"]
    assert [ticket.position for ticket in snapshot.queue] == [1, 2]
    assert snapshot.queue_length == 5
    assert snapshot.taken_at == START


def test_looking_changes_nothing() -> None:
    world = World(gpus(monitored=True))
    world.show(used=GIB, processes={pid(7): GIB})
    world.acquire(process=pid(7))
    assert world.snapshot() == world.snapshot()


def test_the_revision_rises_with_every_change_and_with_nothing_else() -> None:
    world = World(gpus(2, monitored=True))
    seen = world.arbiter.revision

    def changed() -> bool:
        nonlocal seen
        before, seen = seen, world.arbiter.revision
        assert seen in (before, before + 1)
        return seen > before

    assert seen == 0
    world.read("gpu:0")
    assert changed()
    lease = world.acquire(request_id="r", candidates=("gpu:0",), process=pid(7))
    assert changed()
    waiting = world.acquire(candidates=("gpu:0",))
    assert changed()
    world.check_fence("gpu:0", 1)
    world.tick()
    world.spawn(pid(7), pid(8))
    assert not changed()
    world.renew(lease.lease_id)
    assert changed()
    world.cancel(waiting)
    assert changed()
    world.drain()
    assert changed()
    world.resume()
    assert changed()
    world.resize(lease.lease_id, GIB)
    assert changed()
    world.hang_up(lease)
    assert changed()
    world.die(pid(7))
    assert changed()
    world.configure(queue_limit=1)
    assert changed()
    world.lose("gpu:0")
    assert changed()
    world.shut_down()
    assert changed()


def test_the_observers_hear_of_every_turn_in_the_life_of_a_request() -> None:
    world = World(gpus(2))
    holder = world.acquire()
    world.acquire(client="other", candidates=("gpu:1",))
    context = WorkContext(job_id="job")
    request = replace(world.request("NMT", "c9", request_id="r"), context=context, traceparent="00-1-2-01")
    stream = world.ask_for(request)
    world.advance(2)
    world.release(holder)
    world.advance(3)
    world.release(stream)
    own = [record for record in world.records if record.request_id == "r"]
    assert [record.type for record in own] == [EventType.QUEUED, EventType.GRANTED, EventType.ENDED]
    for record in own:
        assert (record.task_type, record.holder, record.context) == ("NMT", request.holder, context)
        assert record.traceparent == "00-1-2-01"
    queued, granted, ended = own
    assert queued.gpus == ()  # any of them
    assert (granted.waited, granted.outcome, granted.gpus) == (2.0, "granted", ("gpu:0",))
    assert (granted.lease_id, granted.fencing_token) == (stream.lease_id, stream.lease.fencing_token)
    assert (ended.waited, ended.held, ended.end_reason) == (2.0, 3.0, EndReason.RELEASED)
    world.acquire(candidates=("gpu:1", "gpu:1"))
    assert world.recorded(EventType.QUEUED)[-1].gpus == ("gpu:1",)


def test_idle_is_when_nobody_holds_or_waits() -> None:
    world = World()
    assert world.arbiter.idle
    lease = world.acquire()
    assert not world.arbiter.idle
    world.drain()
    world.release(lease)
    waiting = world.acquire()
    assert not world.arbiter.idle
    world.cancel(waiting)
    assert world.arbiter.idle


def test_settings_in_force() -> None:
    world = World(settings_=settings(queue_limit=3))
    assert world.arbiter.settings.queue_limit == 3
    world.configure(queue_limit=5)
    assert world.arbiter.settings.queue_limit == 5
    assert world.gpu().queue_limit == 5
