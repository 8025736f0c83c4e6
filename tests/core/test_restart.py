"""After a restart: what an earlier start left is taken up again."""

from dataclasses import replace

import pytest

from core.world import GIB, PATIENT, Stream, World, gpus, pid, settings
from gpuarbiter_server.core import effects as fx
from gpuarbiter_server.core import events as ev
from gpuarbiter_server.core.errors import ArbiterError, ErrorReason
from gpuarbiter_server.core.model import (
    EndReason,
    EventType,
    LeaseState,
    ProcessId,
    Sharing,
    WaitReason,
    YieldReason,
)
from gpuarbiter_server.core.policy import Policy, Watchdog


def world_with(policy: Policy = PATIENT, count: int = 1, **others: object) -> World:
    return World(gpus(count), settings(policy, cooldown=0.0, **others), journal=True)


def states(world: World) -> list[LeaseState]:
    return [lease.state for lease in world.snapshot().leases]


def test_a_lease_comes_back_and_is_joined() -> None:
    world = world_with()
    before = world.acquire(request_id="r", memory=GIB, priority=70)
    world.crash()
    assert states(world) == [LeaseState.RECOVERING]
    assert world.snapshot().recovering
    (recovered,) = world.recorded(EventType.RECOVERED)
    assert (recovered.lease_id, recovered.detail) == (before.lease_id, "waits for its holder for 10.000 s")
    after = world.again(before)
    assert after.lease.lease_id == before.lease_id
    assert after.lease.fencing_token == before.lease.fencing_token
    assert after.lease.priority == 70
    assert states(world) == [LeaseState.HELD]
    assert not world.snapshot().recovering
    world.advance(3600)
    assert after.held


def test_one_that_is_not_joined_ends_when_the_grace_is_over() -> None:
    world = world_with(recovery_grace=10.0)
    world.acquire(request_id="r")
    world.crash()
    waiting = world.acquire(request_id="next")
    world.advance(9.9)
    assert waiting.waiting
    world.advance(0.2)
    assert waiting.held
    ended = world.recorded(EventType.ENDED)[-1]
    assert ended.end_reason is EndReason.NOT_RECOVERED


def test_what_it_blocks_is_told_so() -> None:
    world = world_with()
    world.acquire(request_id="r")
    world.crash()
    assert world.acquire(request_id="next").queued.reason is WaitReason.RECOVERY


def test_beside_a_lease_whose_holder_is_there_the_gpu_is_busy() -> None:
    world = world_with()
    one = world.shared(GIB, request_id="a")
    world.shared(GIB, "c2", request_id="b")
    world.crash()
    world.again(one)
    assert world.acquire(client="c3", request_id="c").queued.reason is WaitReason.GPU_BUSY


def test_memory_that_a_holder_may_come_back_for_is_waited_for() -> None:
    world = world_with()
    world.shared(20 * GIB, request_id="r")
    world.crash()
    assert world.shared(10 * GIB, "c2", request_id="next").queued.reason is WaitReason.RECOVERY


def test_a_ttl_is_whole_again_once() -> None:
    world = world_with()
    lease = world.acquire(request_id="r", ttl=30.0)
    world.hang_up(lease)
    world.advance(20)
    world.crash()
    assert world.snapshot().leases[0].ttl_remaining == 30.0
    world.advance(20)
    world.crash()
    assert world.snapshot().leases[0].ttl_remaining == 10.0
    world.advance(10)
    assert world.recorded(EventType.ENDED)[-1].end_reason is EndReason.TTL_EXPIRED


def test_a_renewal_is_a_sign_of_life() -> None:
    world = world_with()
    lease = world.acquire(request_id="r", ttl=30.0, detached=True)
    world.crash()
    world.advance(20)
    assert world.renew(lease.lease_id).ttl_remaining == 30.0
    assert states(world) == [LeaseState.DETACHED]
    world.crash()
    assert world.snapshot().leases[0].ttl_remaining == 30.0


def test_one_without_a_name_of_the_callers_can_be_renewed_but_ends_by_the_grace() -> None:
    world = world_with()
    lease = world.acquire()
    world.crash()
    world.renew(lease.lease_id)
    world.advance(9.9)
    assert len(world.snapshot().leases) == 1
    world.advance(0.2)
    assert not world.snapshot().leases


def test_it_can_be_released_at_once() -> None:
    world = world_with()
    lease = world.acquire(request_id="r")
    world.crash()
    assert world.release(lease, token=lease.lease.fencing_token).reason is EndReason.RELEASED
    assert world.acquire(request_id="next").held


def test_the_hold_goes_on_where_it_was() -> None:
    policy = replace(PATIENT, max_hold=10.0, watchdog=Watchdog(grace=5.0, revoke=True))
    world = world_with(policy)
    lease = world.acquire(request_id="r", ttl=60.0)
    world.advance(8)
    world.crash()
    assert world.again(lease).lease.hold_remaining == 2.0
    world.advance(2)
    asked = world.streams[max(world.streams)].of(fx.YieldRequested)
    assert [(request.reason, request.grace) for request in asked] == [(YieldReason.MAX_HOLD, 5.0)]
    world.advance(3)
    world.crash()
    # The watchdog does not begin anew: two seconds of the grace are left.
    again = world.again(lease)
    assert again.of(fx.YieldRequested)[0].grace == 2.0
    world.advance(2)
    assert again.ended.reason is EndReason.MAX_HOLD


def test_its_holder_may_have_died_meanwhile() -> None:
    world = world_with()
    world.acquire(request_id="r", process=pid(7))
    world.crash()
    assert world.watched == {pid(7)}
    world.die(pid(7))
    assert world.recorded(EventType.ENDED)[-1].end_reason is EndReason.HOLDER_DIED


def test_pids_of_another_namespace_are_not_watched() -> None:
    world = world_with()
    lease = world.acquire(request_id="r", process=pid(7))
    assert world.disk is not None
    saved = world.disk.written.saved()
    world.crash()
    twin = world_with()
    twin.send(ev.Recover(saved, same_pids=False))
    assert not twin.watched
    assert twin.snapshot().leases[0].holder.process is None
    assert twin.snapshot().leases[0].lease_id == lease.lease_id


def test_after_a_start_of_the_machine_all_is_over() -> None:
    world = world_with()
    lease = world.acquire(request_id="r", ttl=3600.0)
    world.drain("gpu:0", reason="fan")
    world.crash(same_boot=False)
    assert not world.snapshot().leases
    assert world.gpu().cordoned
    world.resume()
    assert world.recorded(EventType.ENDED)[-1].end_reason is EndReason.HOLDER_DIED
    assert world.release(lease).already_ended
    assert world.again(lease).ended.reason is EndReason.HOLDER_DIED
    assert world.acquire(request_id="next").held
    # What is known of it is on the disk with times of now.
    world.crash()
    assert world.release(lease).already_ended


def test_a_lease_on_a_gpu_that_is_gone_is_over() -> None:
    world = world_with(count=2)
    lease = world.acquire(request_id="r", count=2)
    world.crash(specs=gpus(1))
    assert not world.snapshot().leases
    assert world.recorded(EventType.ENDED)[-1].end_reason is EndReason.GPU_LOST
    assert world.again(lease).ended.detail == "gpu:1 is not there any more"


def test_a_gpu_that_was_away_for_a_start_is_cordoned_still() -> None:
    world = world_with(count=2)
    world.drain("gpu:1")
    world.crash(specs=gpus(1))
    world.crash(specs=gpus(2))
    assert world.gpu("gpu:1").cordoned


def test_gpus_are_found_by_their_uuid() -> None:
    world = world_with(count=2)
    lease = world.acquire(request_id="r", candidates=("gpu:1",))
    first, second = gpus(2)
    world.crash(specs=(replace(first, uuid="GPU-1"), replace(second, uuid="GPU-9")))
    assert world.again(lease).on == ("gpu:0",)


def test_gpus_without_a_uuid_are_found_by_their_key() -> None:
    bare = tuple(replace(spec, uuid="") for spec in gpus(2))
    world = World(bare, settings(), journal=True)
    lease = world.acquire(request_id="r", candidates=("gpu:1",))
    world.crash()
    assert world.again(lease).on == ("gpu:1",)


def test_what_is_kept_of_a_gpu_follows_its_uuid_when_keys_move() -> None:
    world = world_with(count=2)
    lease = world.acquire(request_id="r", candidates=("gpu:1",))
    world.release(lease)
    first, second = gpus(2)
    world.crash(specs=(replace(second, key="gpu:0", index=0),))
    world.drain("gpu:0", reason="fan")
    world.crash(specs=(replace(second, key="gpu:0", index=0),))
    assert world.gpu("gpu:0").cordoned
    world.resume("gpu:0")
    world.crash(specs=(first, second))
    assert [gpu.cordoned for gpu in world.snapshot().gpus] == [False, False]
    assert world.check_fence("gpu:1", 1).newest_token == lease.lease.fencing_token


@pytest.mark.parametrize("same_boot", [True, False])
def test_the_cordon_of_a_gpu_that_is_away_outlives_a_journal_written_anew(same_boot: bool) -> None:
    world = world_with(count=2)
    world.drain("gpu:1")
    world.crash(same_boot=same_boot, specs=gpus(1))
    world.break_journal()
    world.mend_journal()
    world.crash(specs=gpus(2))
    assert world.gpu("gpu:1").cordoned


@pytest.mark.parametrize("process", [None, pid(7)])
def test_a_lease_that_lost_one_of_its_gpus_leaves_the_others_to_cool_down(process: ProcessId | None) -> None:
    world = World(gpus(2), settings(cooldown=15.0), journal=True)
    world.acquire(request_id="r", count=2, process=process)
    world.advance(1)
    world.crash(specs=gpus(1))
    assert not world.snapshot().leases
    assert world.gpu("gpu:0").cooldown_remaining == 15.0
    world.advance(5)
    # And so does the one that was away, should it be back soon.
    world.crash(specs=gpus(2))
    assert [gpu.cooldown_remaining for gpu in world.snapshot().gpus] == [10.0, 10.0]
    assert world.check_fence("gpu:1", 1).newest_token == 100


def test_a_shared_lease_leaves_nothing_to_cool_down() -> None:
    world = World(gpus(2), settings(cooldown=15.0), journal=True)
    world.shared(GIB, request_id="r", count=2)
    world.crash(specs=gpus(1))
    assert world.gpu("gpu:0").cooldown_remaining is None


def test_a_lease_without_any_of_its_gpus_is_over() -> None:
    world = world_with(count=2)
    lease = world.acquire(request_id="r", candidates=("gpu:1",))
    world.crash(specs=gpus(1))
    assert world.again(lease).ended.reason is EndReason.GPU_LOST


def test_a_grace_that_ran_out_meanwhile_is_over_at_once() -> None:
    world = world_with()
    lease = world.acquire(request_id="r", ttl=60.0)
    world.revoke(lease.lease_id, grace=5.0)
    world.now += 20
    world.crash()
    assert world.arbiter.next_deadline() == world.now
    world.tick()
    assert world.recorded(EventType.ENDED)[-1].end_reason is EndReason.OPERATOR


def test_cordons_and_tokens_stay() -> None:
    world = world_with(count=2)
    lease = world.acquire(request_id="r", candidates=("gpu:1",))
    world.release(lease)
    world.drain("gpu:0", reason="fan")
    world.crash()
    assert [gpu.cordoned for gpu in world.snapshot().gpus] == [True, False]
    assert world.check_fence("gpu:1", 1).newest_token == lease.lease.fencing_token
    newer = world.acquire(request_id="s")
    assert newer.lease.fencing_token > lease.lease.fencing_token


def test_a_cooldown_goes_on() -> None:
    world = World(gpus(monitored=True), settings(cooldown=15.0), journal=True)
    world.show("gpu:0", GIB, {pid(5): GIB})
    lease = world.acquire(request_id="r", process=pid(7))
    world.show("gpu:0", 2 * GIB, {pid(5): GIB, pid(8): GIB})
    world.spawn(pid(7), pid(8))
    world.die(pid(7))
    world.look()
    assert world.gpu().cooldown_remaining == 15.0
    world.advance(5)
    world.crash()
    assert world.watched == {pid(8)}
    assert world.gpu().cooldown_remaining == 10.0
    world.show("gpu:0", 2 * GIB, {pid(5): GIB, pid(8): GIB})
    assert world.acquire(request_id="next").queued.reason is WaitReason.COOLDOWN
    world.show("gpu:0", GIB, {pid(5): GIB})
    assert world.gpu().cooldown_remaining is None
    assert lease.lease_id not in world.gpu().lease_ids


def test_a_cooldown_of_another_pid_namespace_ends_by_time_alone() -> None:
    world = World(gpus(), settings(cooldown=15.0), journal=True)
    world.acquire(request_id="r", process=pid(7))
    world.spawn(pid(7), pid(8))
    world.die(pid(7))
    assert world.disk is not None
    saved = world.disk.written.saved()
    twin = World(gpus(), settings(cooldown=15.0), journal=True)
    twin.send(ev.Recover(saved, same_pids=False))
    assert not twin.watched
    assert twin.gpu().cooldown_remaining == 15.0
    twin.advance(15)
    assert twin.gpu().cooldown_remaining is None


def test_sequences_go_on() -> None:
    world = world_with(count=2)
    first = world.acquire(request_id="a", sequence=("s", 1))
    world.crash()
    assert world.acquire(request_id="b", sequence=("s", 2)).queued.reason is WaitReason.SEQUENCE
    world.release(first)


def test_limits_count_what_came_back() -> None:
    world = World(gpus(2), settings(policies={"ONE": replace(PATIENT, max_concurrent_leases=1)}), journal=True)
    world.acquire("ONE", request_id="a")
    world.crash()
    assert world.acquire("ONE", request_id="b").queued.reason is WaitReason.CONCURRENCY_LIMIT


@pytest.mark.parametrize("declared", [0, 3 * GIB])
def test_what_it_has_is_as_it_was(declared: int) -> None:
    world = world_with()
    lease = world.acquire(request_id="r", memory=declared)
    world.resize(lease.lease_id, 2 * GIB, Sharing.SHARED)
    world.crash()
    (view,) = world.snapshot().leases
    assert (view.sharing, view.gpus[0].declared_bytes, view.gpus[0].committed_bytes) == (
        Sharing.SHARED,
        2 * GIB,
        2 * GIB,
    )
    assert world.shared(GIB, "c2", request_id="beside").held


def test_ended_requests_are_known_still() -> None:
    world = world_with()
    lease = world.acquire(request_id="r")
    world.release(lease)
    late = world.acquire(request_id="skipped", max_wait=0.0)
    world.release(late)
    world.crash()
    assert world.release(lease).already_ended
    assert world.release(request_id="r").already_ended
    assert world.again(lease).ended.reason is EndReason.RELEASED


def test_more_tokens_are_reserved_before_they_are_granted() -> None:
    world = world_with()
    leases: list[Stream] = []
    for number in range(6):
        leases.append(world.acquire(request_id=f"r{number}"))
        world.release(leases[-1])
    assert world.disk is not None
    assert world.disk.written.tokens_until > 2**16
    world.crash()
    assert world.acquire(request_id="next").lease.fencing_token > 2**16


def test_a_join_with_other_wishes_is_refused_as_ever() -> None:
    world = world_with()
    lease = world.acquire(request_id="r", ttl=5.0)
    world.crash()
    assert world.again(lease, ttl=6.0).error.reason is ErrorReason.REQUEST_ID_CONFLICT
    assert states(world) == [LeaseState.RECOVERING]


def test_the_lease_ids_of_before_are_known_for_ever() -> None:
    world = world_with()
    lease = world.acquire(request_id="r")
    world.release(lease)
    world.advance(2 * 3600)
    world.crash()
    assert world.release(lease).already_ended
    with pytest.raises(ArbiterError):
        world.release(lease_id="ff-0000000000000000")


def test_a_process_is_what_it_was() -> None:
    world = world_with()
    world.acquire(request_id="r", process=ProcessId(7, 99))
    world.crash()
    assert world.watched == {ProcessId(7, 99)}
