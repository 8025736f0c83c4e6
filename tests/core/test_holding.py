"""What can be done with a lease while it is held, and after."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from core.world import GIB, PATIENT, World, gpus, pid, settings
from gpuarbiter_server.core import effects as fx
from gpuarbiter_server.core.errors import ArbiterError, ErrorReason
from gpuarbiter_server.core.events import Caller
from gpuarbiter_server.core.model import (
    EndReason,
    EventType,
    MemoryVerdict,
    Sharing,
    WorkDevice,
    WorkReport,
    WorkResult,
)
from gpuarbiter_server.core.policy import Memory

STRANGER = Caller("stranger", admin=False)
OWNER = Caller("local", admin=False)


def refused(call: Callable[[], object], reason: ErrorReason) -> ArbiterError:
    with pytest.raises(ArbiterError) as refusal:
        call()
    assert refusal.value.reason is reason
    return refusal.value


# -- release --


def test_a_release_by_lease_id_ends_the_lease_and_its_stream() -> None:
    world = World()
    lease = world.acquire()
    world.advance(3)
    released = world.release(lease_id=lease.lease_id, token=lease.lease.fencing_token)
    assert (released.reason, released.held, released.already_ended) == (EndReason.RELEASED, 3.0, False)
    assert (lease.ended.reason, lease.ended.held) == (EndReason.RELEASED, 3.0)


def test_a_release_by_request_id_reaches_what_waits_and_what_is_held() -> None:
    world = World()
    holder = world.acquire(request_id="held")
    waiting = world.acquire(request_id="waits")
    released = world.release(request_id="waits")
    assert (released.reason, released.already_ended) == (EndReason.CANCELLED, False)
    assert waiting.error.reason is ErrorReason.CANCELLED
    assert world.release(request_id="held").reason is EndReason.RELEASED
    assert holder.ended


def test_a_token_that_a_waiting_request_cannot_have_does_not_take_it_back() -> None:
    world = World()
    world.acquire()
    waiting = world.acquire(request_id="r")
    refused(lambda: world.release(request_id="r", token=7), ErrorReason.STALE_TOKEN)
    assert waiting.waiting


def test_a_release_of_what_was_refused_at_once_is_answered_as_late() -> None:
    world = World()
    world.acquire(request_id="r", memory=10**15)
    released = world.release(request_id="r")
    assert (released.already_ended, released.reason) == (True, EndReason.CANCELLED)


def test_a_release_is_idempotent() -> None:
    world = World()
    lease = world.acquire(request_id="r")
    world.acquire(client="b", request_id="w")
    world.release(lease)
    for _ in range(2):
        for again in (world.release(lease_id=lease.lease_id), world.release(request_id="r")):
            assert (again.reason, again.already_ended) == (EndReason.RELEASED, True)
    assert len(world.snapshot().leases) == 1  # the other one got the GPU, and keeps it


def test_a_request_that_was_taken_back_has_ended_too() -> None:
    world = World()
    world.acquire()
    world.acquire(request_id="r")
    world.release(request_id="r")
    again = world.release(request_id="r")
    assert (again.reason, again.already_ended) == (EndReason.CANCELLED, True)


@pytest.mark.parametrize("target", [{"lease_id": "64-0123456789abcdef"}, {"lease_id": "what"}, {"request_id": "what"}])
def test_what_never_was_is_unknown(target: dict[str, Any]) -> None:
    world = World()
    world.acquire(request_id="r")
    error = refused(lambda: world.release(**target), ErrorReason.UNKNOWN_LEASE)
    assert error.metadata == {"name": next(iter(target.values()))}


def test_an_id_of_ours_is_told_from_a_made_up_one_for_ever() -> None:
    world = World()
    old = world.acquire()
    world.release(old)
    world.advance(7200)
    world.release(world.acquire())
    assert world.state.leases.ended(old.lease_id) is None
    released = world.release(lease_id=old.lease_id)
    assert (released.already_ended, released.reason) == (True, EndReason.UNSPECIFIED)
    assert released.memory_verdict is MemoryVerdict.UNSPECIFIED
    refused(lambda: world.renew(old.lease_id), ErrorReason.LEASE_ENDED)
    refused(lambda: world.renew(old.lease_id[:-1] + "x"), ErrorReason.UNKNOWN_LEASE)
    refused(lambda: world.renew("ff" + old.lease_id), ErrorReason.UNKNOWN_LEASE)


def test_another_fencing_token_releases_nothing() -> None:
    world = World()
    lease = world.acquire()
    error = refused(lambda: world.release(lease_id=lease.lease_id, token=7), ErrorReason.STALE_TOKEN)
    assert error.metadata == {"fencing_token": "7"}
    assert lease.held
    world.release(lease)
    refused(lambda: world.release(lease_id=lease.lease_id, token=7), ErrorReason.STALE_TOKEN)
    assert world.release(lease_id=lease.lease_id, token=lease.lease.fencing_token).already_ended


def test_another_identity_may_not_release_renew_or_resize() -> None:
    world = World()
    lease = world.acquire(request_id="r")
    for call in (
        lambda: world.release(lease_id=lease.lease_id, caller=STRANGER),
        lambda: world.renew(lease.lease_id, caller=STRANGER),
        lambda: world.resize(lease.lease_id, GIB, caller=STRANGER),
    ):
        refused(call, ErrorReason.NOT_PERMITTED)
    refused(lambda: world.release(request_id="r", caller=STRANGER), ErrorReason.UNKNOWN_LEASE)
    assert lease.held
    world.release(lease_id=lease.lease_id, caller=OWNER)
    refused(lambda: world.release(lease_id=lease.lease_id, caller=STRANGER), ErrorReason.NOT_PERMITTED)
    refused(lambda: world.renew(lease.lease_id, caller=STRANGER), ErrorReason.NOT_PERMITTED)


def test_an_admin_may_end_anybodys() -> None:
    world = World()
    lease = world.acquire()
    world.release(lease_id=lease.lease_id, caller=Caller("root", admin=True))
    assert lease.ended


def test_a_bare_request_id_that_several_clients_use_must_be_said_more_clearly() -> None:
    world = World(gpus(2))
    first = world.acquire(client="a", request_id="r")
    second = world.acquire(client="b", request_id="r")
    error = refused(lambda: world.release(request_id="r"), ErrorReason.INVALID_REQUEST)
    assert [violation.field for violation in error.violations] == ["request_id"]
    world.release(request_id="r", caller=Caller("local", client_id="b"))
    assert second.ended
    assert first.held
    refused(lambda: world.release(request_id="r", caller=Caller("local", client_id="c")), ErrorReason.UNKNOWN_LEASE)
    assert world.release(request_id="r", caller=Caller("local", client_id="b")).already_ended
    world.release(request_id="r")
    assert first.ended


def test_the_report_of_a_release_says_the_peak_and_goes_to_the_observers() -> None:
    world = World()
    lease = world.shared(10 * GIB)
    report = WorkReport(WorkResult.OK, WorkDevice.GPU, work_items=3, peak_memory_bytes=12 * GIB, duration=1.5)
    released = world.release(lease, report=report)
    assert (released.memory_verdict, released.memory_peak_bytes) == (MemoryVerdict.OVER, 12 * GIB)
    assert lease.ended.memory_peak_bytes == 12 * GIB
    assert world.recorded(EventType.ENDED)[0].report == report
    silent = world.shared(10 * GIB)
    assert world.release(silent, report=WorkReport()).memory_verdict is MemoryVerdict.UNSPECIFIED


def test_what_is_kept_of_ended_leases_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuarbiter_server.core.leases.KEPT_RECORDS", 20)
    world = World()
    for n in range(50):
        # Many clients that use one name, too.
        world.release(world.acquire(client=f"c{n}", request_id="r"))
    table = world.state.leases
    assert len(table._ended) == len(table._ended_requests) == 20
    assert len(table._ended_names.of_principal("local", "r")) == 20
    assert world.release(request_id="r", caller=Caller("local", client_id="c49")).already_ended
    refused(lambda: world.release(request_id="r", caller=Caller("local", client_id="c0")), ErrorReason.UNKNOWN_LEASE)


def test_a_later_end_under_a_shared_name_is_kept_for_its_own_hour() -> None:
    world = World()
    for client, wait in (("a", 1), ("b", 1), ("a", 3590)):
        world.acquire(client="holder")
        world.acquire(client=client, request_id="r")
        world.advance(wait)
        world.release(request_id="r")
        world.release(lease_id=world.snapshot().leases[0].lease_id)
    world.advance(3000)
    world.release(world.acquire())
    assert world.release(request_id="r", caller=Caller("local", client_id="a")).already_ended


# -- taking an acquire of a session back --


def test_a_cancel_takes_a_waiting_request_out_and_ends_a_held_one() -> None:
    world = World()
    holder, waiting = world.acquire(), world.acquire()
    cancelled = world.cancel(waiting)
    assert (cancelled.reason, cancelled.already_ended) == (EndReason.CANCELLED, False)
    assert waiting.error.reason is ErrorReason.CANCELLED
    ended = world.cancel(holder)
    assert (ended.reason, ended.already_ended) == (EndReason.RELEASED, False)
    assert holder.ended.reason is EndReason.RELEASED
    again = world.cancel(holder)
    assert (again.reason, again.already_ended, again.held) == (EndReason.CANCELLED, True, 0.0)


# -- renew --


def test_a_renewal_moves_no_hold() -> None:
    world = World()
    lease = world.acquire(max_hold=10)
    world.advance(4)
    renewed = world.renew(lease.lease_id, token=lease.lease.fencing_token)
    assert (renewed.ttl_remaining, renewed.hold_remaining, renewed.pending_yield) == (None, 6.0, None)
    assert len(world.recorded(EventType.RENEWED)) == 1


def test_unless_it_asks_for_more() -> None:
    world = World()
    lease = world.acquire(max_hold=10)
    world.advance(4)
    assert world.renew(lease.lease_id, extend=30).hold_remaining == 30
    world.advance(29)
    assert not world.recorded(EventType.HOLD_EXCEEDED)
    world.advance(1)
    assert world.recorded(EventType.HOLD_EXCEEDED)


@pytest.mark.parametrize(("asked", "given"), [(3.0, 3.0), (100.0, 16.0)])
def test_but_not_for_more_than_the_policy_allows(asked: float, given: float) -> None:
    world = World(settings_=settings(replace(PATIENT, max_hold=10.0, max_hold_limit=20.0)))
    lease = world.acquire()
    world.advance(4)
    assert world.renew(lease.lease_id, extend=asked).hold_remaining == given
    world.advance(30)
    assert world.renew(lease.lease_id, extend=asked).hold_remaining == 0


def test_a_renewal_with_the_wrong_token_renews_nothing() -> None:
    world = World(settings_=settings(cooldown=0.0))
    lease = world.acquire(ttl=10)
    world.hang_up(lease)
    world.advance(9)
    refused(lambda: world.renew(lease.lease_id, token=1), ErrorReason.STALE_TOKEN)
    world.advance(1)
    assert world.arbiter.idle


def test_an_ended_lease_can_be_neither_renewed_nor_resized() -> None:
    world = World()
    lease = world.acquire()
    world.release(lease)
    for call in (lambda: world.renew(lease.lease_id), lambda: world.resize(lease.lease_id, GIB)):
        error = refused(call, ErrorReason.LEASE_ENDED)
        assert error.metadata == {"end_reason": "RELEASED"}
        assert lease.lease_id in error.message


# -- resize --


def test_less_memory_makes_room_for_others() -> None:
    world = World()
    lease = world.shared(20 * GIB)
    waiting = world.shared(10 * GIB)
    resized = world.resize(lease.lease_id, 14 * GIB)
    assert resized.lease.gpus[0].committed_bytes == 14 * GIB
    assert waiting.held
    assert "SHARED" in world.recorded(EventType.RESIZED)[0].detail


def test_more_memory_only_if_it_would_be_admitted_now() -> None:
    world = World()
    lease = world.shared(8 * GIB)
    world.shared(8 * GIB)
    error = refused(lambda: world.resize(lease.lease_id, 17 * GIB), ErrorReason.RESIZE_REFUSED)
    assert str(16 * GIB) in error.message
    assert world.gpu().committed_bytes == 16 * GIB
    assert world.resize(lease.lease_id, 16 * GIB).lease.gpus[0].declared_bytes == 16 * GIB


def test_exclusive_to_shared_once_a_model_is_loaded() -> None:
    world = World(gpus(monitored=True))
    world.show(processes={})
    world.advance(0.25)
    lease = world.acquire(process=pid(7))
    waiting = world.shared(8 * GIB, "b", process=pid(8))
    refused(lambda: world.resize(lease.lease_id, sharing=Sharing.SHARED), ErrorReason.RESIZE_REFUSED)
    world.show(used=10 * GIB, processes={pid(7): 10 * GIB})
    resized = world.resize(lease.lease_id, sharing=Sharing.SHARED)
    assert resized.lease.sharing is Sharing.SHARED
    assert resized.lease.gpus[0].declared_bytes == 11 * GIB
    assert waiting.held
    assert world.resize(lease.lease_id, sharing=Sharing.SHARED).lease.gpus[0].declared_bytes == 11 * GIB


def test_to_shared_with_a_figure_needs_no_reading() -> None:
    world = World()
    lease = world.acquire()
    assert world.resize(lease.lease_id, 6 * GIB, Sharing.SHARED).lease.gpus[0].committed_bytes == 6 * GIB
    assert world.shared(18 * GIB).held


def test_shared_to_exclusive_only_alone() -> None:
    world = World(gpus(2))
    lease = world.shared(GIB, candidates=("gpu:0",))
    other = world.shared(GIB, candidates=("gpu:0",))
    error = refused(lambda: world.resize(lease.lease_id, sharing=Sharing.EXCLUSIVE), ErrorReason.RESIZE_REFUSED)
    assert "gpu:0 has other leases on it" in error.message
    world.release(other)
    world.resize(lease.lease_id, sharing=Sharing.EXCLUSIVE)
    assert world.shared(GIB, candidates=("gpu:0",)).waiting


def test_exclusive_without_a_figure_commits_all_that_is_left() -> None:
    world = World()
    lease = world.acquire(memory=GIB)
    assert world.gpu().admissible_bytes == 23 * GIB
    world.resize(lease.lease_id, 0)
    assert world.gpu().admissible_bytes == 0


def test_shared_stays_as_it_is() -> None:
    world = World()
    lease = world.shared(4 * GIB)
    assert world.resize(lease.lease_id, sharing=Sharing.SHARED).lease.gpus[0].declared_bytes == 4 * GIB


def test_as_much_as_before_is_never_too_much() -> None:
    world = World(gpus(monitored=True))
    world.show(processes={})
    lease = world.shared(10 * GIB, process=pid(7))
    world.show(used=20 * GIB, processes={pid(66): 20 * GIB})
    assert world.resize(lease.lease_id, 10 * GIB)
    refused(lambda: world.resize(lease.lease_id, 10 * GIB + 1), ErrorReason.RESIZE_REFUSED)


def test_no_less_than_what_it_was_seen_to_use() -> None:
    world = World(gpus(monitored=True))
    world.show(processes={})
    lease = world.shared(10 * GIB, process=pid(7))
    world.show(used=10 * GIB, processes={pid(7): 10 * GIB})
    world.show(used=2 * GIB, processes={pid(7): 2 * GIB})
    resized = world.resize(lease.lease_id, 4 * GIB)
    assert resized.lease.gpus[0].declared_bytes == 4 * GIB
    assert resized.lease.gpus[0].committed_bytes == 11 * GIB


def test_all_gpus_of_a_lease_or_none() -> None:
    world = World(gpus(2))
    world.shared(20 * GIB, candidates=("gpu:1",))
    lease = world.shared(2 * GIB, count=2)
    refused(lambda: world.resize(lease.lease_id, 5 * GIB), ErrorReason.RESIZE_REFUSED)
    assert [gpu.committed_bytes for gpu in world.snapshot().gpus] == [2 * GIB, 22 * GIB]
    world.resize(lease.lease_id, 4 * GIB)
    assert [gpu.committed_bytes for gpu in world.snapshot().gpus] == [4 * GIB, 24 * GIB]


def test_a_resize_with_the_wrong_token_changes_nothing() -> None:
    world = World()
    lease = world.shared(GIB)
    refused(lambda: world.resize(lease.lease_id, 2 * GIB, token=1), ErrorReason.STALE_TOKEN)
    assert world.gpu().committed_bytes == GIB


def test_what_grows_by_readings_leaves_less_to_grow_to() -> None:
    world = World(gpus(monitored=True), settings(memory=Memory(headroom_bytes=0)))
    world.show(used=20 * GIB, processes={pid(66): 20 * GIB})
    lease = world.shared(2 * GIB, process=pid(7))
    refused(lambda: world.resize(lease.lease_id, 5 * GIB), ErrorReason.RESIZE_REFUSED)
    world.resize(lease.lease_id, 4 * GIB)


# -- fences --


def test_a_fence_knows_the_tokens_of_live_leases() -> None:
    world = World(gpus(2))
    first = world.shared(GIB, candidates=("gpu:0",)).lease
    second = world.shared(GIB, candidates=("gpu:0",)).lease
    assert world.check_fence("0", first.fencing_token) == fx.FenceChecked(3, True, second.fencing_token)
    assert world.check_fence("0", second.fencing_token).current
    assert not world.check_fence("0", second.fencing_token + 1).current
    assert world.check_fence("1", first.fencing_token) == fx.FenceChecked(6, False, 0)
    world.release(lease_id=second.lease_id)
    assert not world.check_fence("0", second.fencing_token).current
    assert world.check_fence("0", first.fencing_token).newest_token == second.fencing_token


def test_tokens_rise_with_every_grant() -> None:
    world = World(gpus(2))
    tokens = [world.shared(1).lease.fencing_token for _ in range(5)]
    assert tokens == sorted(set(tokens))
    assert tokens[0] == 100


# -- work without a lease --


def test_work_without_a_lease_is_passed_on_to_the_observers() -> None:
    world = World()
    report = WorkReport(WorkResult.FAILED, WorkDevice.CPU)
    assert isinstance(world.report(report, "NMT", "c9"), fx.Done)
    (record,) = world.recorded(EventType.WORK_REPORTED)
    assert record.holder is not None
    assert (record.task_type, record.holder.client_id, record.report) == ("NMT", "c9", report)
    assert record.detail == "FAILED on CPU"
    assert world.arbiter.idle
