"""Nothing is granted that is not written: grants on their way, a journal that fails, and one that is back."""

from dataclasses import replace

import pytest

from core.world import GIB, PATIENT, World, gpus, pid, settings
from gpuarbiter_server.core import effects as fx
from gpuarbiter_server.core import events as ev
from gpuarbiter_server.core.errors import ArbiterError, ErrorReason
from gpuarbiter_server.core.model import BusyPolicy, EndReason, EventType, Sharing, WaitReason, YieldReason
from gpuarbiter_server.core.policy import Policy


def lagging(policy: Policy = PATIENT, count: int = 1, **others: object) -> World:
    return World(gpus(count), settings(policy, **others), journal=True, lag=True)


def test_a_grant_is_offered_once_it_is_written() -> None:
    world = lagging()
    stream = world.acquire(request_id="r")
    assert stream.waiting
    # It is decided, and told as such.
    assert len(world.recorded(EventType.GRANTED)) == 1
    world.advance(0.5)
    world.write()
    assert stream.held
    assert stream.lease.queue_wait == 0.0
    assert len(world.recorded(EventType.GRANTED)) == 1


def test_several_are_offered_in_the_order_of_their_changes() -> None:
    world = lagging(count=2)
    first = world.acquire(request_id="a", candidates=("gpu:0",))
    second = world.acquire(request_id="b", candidates=("gpu:1",))
    world.write(1)
    assert (first.held, second.waiting) == (True, True)
    world.write()
    assert second.held


def test_a_detached_one_lives_from_its_offer_on() -> None:
    world = lagging()
    stream = world.acquire(request_id="r", ttl=10.0, detached=True)
    world.advance(1.5)
    world.write()
    assert stream.lease.ttl_remaining == 10.0
    world.advance(9.9)
    assert len(world.snapshot().leases) == 1


def test_who_hangs_up_before_the_offer_waits_again_if_it_has_a_name() -> None:
    world = lagging()
    stream = world.acquire(request_id="r")
    world.hang_up(stream)
    assert not world.snapshot().leases
    world.write()
    again = world.again(stream)
    world.write()
    assert again.held
    assert again.lease.fencing_token == 101


def test_who_hangs_up_without_a_name_never_was() -> None:
    world = lagging()
    stream = world.acquire()
    world.hang_up(stream)
    assert not world.snapshot().leases
    assert world.recorded(EventType.FAILED)[-1].outcome == "cancelled"
    world.write()
    assert world.disk is not None
    assert not world.disk.written.leases


@pytest.mark.parametrize("detached", [False, True])
def test_another_stream_takes_a_grant_on_its_way_over(detached: bool) -> None:
    world = lagging()
    first = world.acquire(request_id="r", ttl=10.0, detached=detached)
    second = world.again(first)
    assert first.error.reason is ErrorReason.SUPERSEDED
    assert second.waiting
    world.write()
    assert second.granted
    assert not first.granted


def test_who_joined_and_hung_up_waits_again() -> None:
    world = lagging()
    second = world.again(world.acquire(request_id="r"))
    world.hang_up(second)
    assert not world.snapshot().leases
    assert world.snapshot().queue_length == 1


def test_a_release_of_a_grant_on_its_way_cancels_the_request() -> None:
    world = lagging()
    stream = world.acquire(request_id="r")
    answer = world.release(request_id="r")
    assert (answer.reason, answer.already_ended) == (EndReason.CANCELLED, False)
    assert stream.error.reason is ErrorReason.CANCELLED
    world.write()
    assert world.release(request_id="r").already_ended
    again = world.again(stream)
    world.write()
    assert again.held


def test_a_holder_that_dies_before_the_offer_is_not_granted() -> None:
    world = lagging()
    stream = world.acquire(request_id="r", process=pid(7))
    world.die(pid(7))
    assert stream.error.reason is ErrorReason.CANCELLED
    world.write()
    assert not stream.granted


def test_a_yield_request_waits_for_the_offer() -> None:
    world = lagging()
    stream = world.acquire(request_id="r")
    world.drain("gpu:0", grace=5.0)
    assert not stream.of(fx.YieldRequested)
    world.advance(1)
    world.write()
    assert stream.held
    (asked,) = stream.of(fx.YieldRequested)
    assert (asked.reason, asked.grace) == (YieldReason.DRAINING, 4.0)


# -- a journal that fails --


def test_who_has_just_come_is_refused() -> None:
    world = lagging()
    stream = world.acquire(request_id="r")
    world.break_journal()
    assert stream.error.reason is ErrorReason.JOURNAL_UNAVAILABLE
    assert "No space left on device" in stream.error.message
    assert stream.error.retry_after == 1.0
    assert not world.snapshot().leases
    assert world.recorded(EventType.ENDED)[-1].detail == "not taken: it could not be written"
    assert world.effects[0] == fx.Serving(up=False, detail="the journal cannot be written: No space left on device")


def test_who_comes_later_is_refused_as_well() -> None:
    world = lagging()
    world.break_journal()
    assert world.acquire(request_id="r").error.reason is ErrorReason.JOURNAL_UNAVAILABLE
    declined = world.acquire(request_id="s", busy=BusyPolicy.SKIP).declined
    assert (declined.decision, declined.reason) == (BusyPolicy.SKIP, WaitReason.JOURNAL)


def test_a_disabled_arbiter_grants_nothing_either() -> None:
    world = lagging(enabled=False)
    world.break_journal()
    assert world.acquire(request_id="r").error.reason is ErrorReason.JOURNAL_UNAVAILABLE


def test_what_could_never_fit_is_told_that() -> None:
    world = lagging()
    world.break_journal()
    assert world.acquire(request_id="r", memory=100 * GIB).error.reason is ErrorReason.INFEASIBLE


def test_who_has_a_place_keeps_it() -> None:
    world = lagging()
    holder = world.acquire(request_id="a")
    world.write()
    waiting = world.acquire(request_id="b")
    world.advance(1)
    world.release(holder)
    world.break_journal()
    assert waiting.queued.reason is WaitReason.JOURNAL
    assert waiting.waiting
    world.mend_journal()
    world.write()
    world.write()
    assert waiting.held
    assert waiting.lease.queue_wait == 1.0


def test_it_is_not_told_more_often_than_others() -> None:
    world = lagging()
    holder = world.acquire(request_id="a")
    world.write()
    waiting = world.acquire(request_id="b")
    world.release(holder)
    world.break_journal()
    assert len(waiting.of(fx.Queued)) == 1
    world.advance(0.25)
    assert waiting.queued.reason is WaitReason.JOURNAL


def test_a_stream_that_has_heard_nothing_is_told_at_once() -> None:
    world = lagging()
    holder = world.acquire(request_id="a")
    world.write()
    waiting = world.acquire(request_id="b")
    world.release(holder)
    joined = world.again(waiting)
    world.break_journal()
    assert joined.queued.reason is WaitReason.JOURNAL


def test_leases_go_on() -> None:
    world = lagging()
    holder = world.acquire(request_id="a", ttl=5.0)
    world.write()
    world.break_journal()
    world.renew(holder.lease_id)
    with pytest.raises(ArbiterError) as refused:
        world.resize(holder.lease_id, GIB, Sharing.SHARED)
    assert refused.value.reason is ErrorReason.JOURNAL_UNAVAILABLE
    for refused_as_well in (world.drain, world.resume):
        with pytest.raises(ArbiterError):
            refused_as_well("gpu:0")
    assert not world.gpu().cordoned
    assert world.release(holder).reason is EndReason.RELEASED
    assert holder.ended.reason is EndReason.RELEASED


def test_once_it_is_back_everything_is_written_anew() -> None:
    world = lagging(count=2)
    kept = world.acquire(request_id="a", candidates=("gpu:0",))
    gone = world.acquire(request_id="b", candidates=("gpu:1",))
    world.drain("gpu:1", reason="fan")
    world.write()
    world.break_journal()
    world.release(gone)
    assert world.acquire(request_id="c").error.reason is ErrorReason.JOURNAL_UNAVAILABLE
    world.mend_journal()
    # Not before it is written.
    assert world.acquire(request_id="c").error.reason is ErrorReason.JOURNAL_UNAVAILABLE
    world.write()
    assert fx.Serving(up=True) in world.effects
    world.crash()
    assert [lease.lease_id for lease in world.snapshot().leases] == [kept.lease_id]
    assert world.gpu("gpu:1").cordoned
    assert world.release(gone).already_ended


def test_it_may_fail_again_before_it_is_back() -> None:
    world = lagging()
    world.break_journal()
    world.mend_journal()
    world.break_journal()
    assert world.acquire(request_id="c").error.reason is ErrorReason.JOURNAL_UNAVAILABLE
    world.mend_journal()
    world.write()
    stream = world.acquire(request_id="c")
    world.write()
    assert stream.held


def test_word_that_it_may_work_again_is_nothing_while_it_works() -> None:
    world = lagging()
    assert world.send(ev.JournalRetried()) == []


def test_what_a_crash_finds_of_a_failed_write_ends_by_the_grace() -> None:
    world = lagging(recovery_grace=10.0)
    world.acquire(request_id="r")
    world.break_journal(survive=100)
    world.crash()
    assert len(world.snapshot().leases) == 1
    world.advance(10)
    assert not world.snapshot().leases


def test_a_holder_that_comes_back_while_nothing_can_be_written_is_told_to_try_again() -> None:
    world = lagging()
    lease = world.acquire(request_id="r", ttl=30.0)
    world.write()
    world.crash()
    world.break_journal()
    assert world.again(lease).error.reason is ErrorReason.JOURNAL_UNAVAILABLE
    with pytest.raises(ArbiterError) as refused:
        world.renew(lease.lease_id)
    assert refused.value.reason is ErrorReason.JOURNAL_UNAVAILABLE
    world.mend_journal()
    world.write()
    assert world.renew(lease.lease_id).claims
    assert not world.renew(lease.lease_id).claims


def test_word_of_a_holder_that_is_back_waits_for_the_journal() -> None:
    world = lagging()
    lease = world.acquire(request_id="r")
    world.write()
    world.crash()
    (granted,) = world.again(lease).of(fx.Granted)
    assert granted.claims


def test_a_shutdown_grants_nothing_more() -> None:
    world = lagging()
    holder = world.acquire(request_id="a")
    world.write()
    waiting = world.acquire(request_id="b")
    world.release(holder)
    world.shut_down()
    world.break_journal()
    assert waiting.error.reason is ErrorReason.JOURNAL_UNAVAILABLE
    assert not world.snapshot().queue_length


def test_a_join_before_the_offer_starts_no_ttl() -> None:
    world = lagging()
    joined = world.again(world.acquire(request_id="r", ttl=1.0, detached=True))
    world.advance(1.5)
    world.write()
    assert joined.granted


# -- without one --


def test_holders_are_asked_to_yield_when_nothing_outlives_the_arbiter() -> None:
    world = World()
    stream = world.acquire(request_id="r")
    world.shut_down()
    (asked,) = stream.of(fx.YieldRequested)
    assert (asked.reason, asked.grace) == (YieldReason.DRAINING, None)


def test_with_a_journal_they_are_left_alone() -> None:
    world = World(journal=True)
    stream = world.acquire(request_id="r")
    world.shut_down()
    assert not stream.of(fx.YieldRequested)
    assert stream.held


def test_the_sampler_has_no_haste_while_nothing_can_be_granted() -> None:
    world = World(gpus(monitored=True), settings(replace(PATIENT)), journal=True)
    world.show("gpu:0", 20 * GIB, {pid(3): 20 * GIB})
    world.acquire(memory=10 * GIB)
    assert world.fast == {"gpu:0"}
    world.break_journal()
    assert not world.fast
