"""Bugs that an arbiter could have, to be planted: each is one that the simulation must notice.

A plant changes attributes of modules and classes of the core through `patch`, which `planted` takes back.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from gpuarbiter_server.core import (
    arbiter,
    clocks,
    ending,
    gates,
    journaling,
    leases,
    ledger,
    machine,
    offering,
    queueing,
    records,
    recovery,
    requests,
    state,
    timers,
    watchdog,
)
from gpuarbiter_server.core import events as ev
from gpuarbiter_server.core.model import YieldReason

Plant = Callable[[pytest.MonkeyPatch], None]


@contextmanager
def planted(plant: Plant) -> Iterator[None]:
    """The bug is there inside."""
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        yield


def a_token_is_used_again(patch: pytest.MonkeyPatch) -> None:
    """After a restart tokens begin where they began before."""
    make = leases.LeaseTable.__init__
    patch.setattr(leases.LeaseTable, "__init__", lambda self, **kept: make(self, **kept | {"first_token": 100}))


def a_grant_is_lost_to_a_cancelled_waiter(patch: pytest.MonkeyPatch) -> None:
    """Whoever was gone when the grant came keeps it."""
    patch.setattr(requests, "_take_grant_back", lambda *_: None)


def a_waiter_is_granted_after_its_session_died(patch: pytest.MonkeyPatch) -> None:
    """The gate for tickets without a stream stands open."""
    closed = gates.Gates.closed

    def ajar(self: gates.Gates, ticket: Any, settings: Any) -> Any:
        gate = closed(self, ticket, settings)
        return None if gate is self.absent else gate

    patch.setattr(gates.Gates, "closed", ajar)


def a_lost_gpu_stays_lost(patch: pytest.MonkeyPatch) -> None:
    """A flag that is latched: set once, never cleared by readings."""
    failed = machine.gpu_failed
    taken = machine.reading_taken

    def reading_taken(state_: state.State, event: ev.ReadingTaken, now: float) -> None:
        lost = state_.gpus[event.gpu].lost
        taken(state_, event, now)
        if lost is not None:
            failed(state_, ev.GpuFailed(event.gpu, lost), now)

    patch.setitem(arbiter._HANDLERS, ev.ReadingTaken, reading_taken)


def a_late_timer_hits_the_next_holder(patch: pytest.MonkeyPatch) -> None:
    """The clocks of a lease run on after its end."""
    patch.setattr(offering, "stop_clocks", lambda *_: None)


def a_grant_is_offered_before_it_is_written(patch: pytest.MonkeyPatch) -> None:
    """The answer does not wait for the journal."""
    new = state.State.new_lease

    def hasty(self: state.State, ticket: Any, now: float) -> Any:
        lease = new(self, ticket, now)
        lease.offered = True
        return lease

    patch.setattr(state.State, "new_lease", hasty)


def an_end_is_not_written(patch: pytest.MonkeyPatch) -> None:
    """Leases that are over come back with a restart."""
    patch.setattr(state.State, "close", lambda self, record: self.leases.close(record))


def a_resize_is_not_written(patch: pytest.MonkeyPatch) -> None:
    """What changed after the grant is forgotten with a restart: here, that it is shared now."""
    touch = state.State.touch

    def forgetful(self: state.State, lease: Any) -> None:
        if lease.sharing is lease.terms.sharing:
            touch(self, lease)

    patch.setattr(state.State, "touch", forgetful)


def a_restart_begins_the_hold_anew(patch: pytest.MonkeyPatch) -> None:
    """max_hold counts from the restart."""
    restart = recovery._restart_clocks

    def anew(state_: state.State, lease: Any, saved: Any, now: float) -> float:
        patience = restart(state_, lease, saved, now)
        if lease.terms.max_hold:
            clocks.set_hold(state_, lease, now + lease.terms.max_hold)
        return patience

    patch.setattr(recovery, "_restart_clocks", anew)


def a_restart_loop_keeps_dead_leases(patch: pytest.MonkeyPatch) -> None:
    """Each restart waits for the holders from the beginning."""
    restart = recovery._restart_clocks
    patch.setattr(
        recovery,
        "_restart_clocks",
        lambda state_, lease, saved, now: restart(state_, lease, replace(saved, recover_until=None), now),
    )


def a_failed_journal_loses_the_grants_on_their_way(patch: pytest.MonkeyPatch) -> None:
    """Grants that could not be written stay in the books, offered to nobody."""
    patch.setattr(journaling, "_not_granted", lambda state_, lease, _now: state_.journal.offers.pop(lease))


def a_mended_journal_is_not_written_anew(patch: pytest.MonkeyPatch) -> None:
    """What happened while it was broken is not in it."""

    def retried(state_: state.State, _event: Any, _now: float) -> None:
        state_.journal.rewritten_by = state_.journal.number + 1
        state_.save(records.LeaseDropped("none"))

    patch.setitem(arbiter._HANDLERS, ev.JournalRetried, retried)


def two_are_told_the_end(patch: pytest.MonkeyPatch) -> None:
    """A lease that ends tells its stream twice."""
    finish = ending.finish

    def finish_twice(state_: state.State, lease: Any, *arguments: Any, **facts: Any) -> Any:
        listener = lease.listener if lease.offered else None
        record = finish(state_, lease, *arguments, **facts)
        if listener is not None:
            state_.emit(ending.ended_effect(listener, record))
        return record

    patch.setattr(watchdog, "finish", finish_twice)


def memory_of_one_gpu_leaks(patch: pytest.MonkeyPatch) -> None:
    """A lease on several GPUs gives back the first only."""

    def first_only(state_: state.State, lease: Any, now: float, *, used: bool) -> None:
        clocks.stop_clocks(state_, lease)
        for gpu, _ in lease.shares[:1]:
            gpu.remove(lease.lease_id, now, used=used)
        state_.dirty = True

    patch.setattr(offering, "detach_from_gpus", first_only)
    patch.setattr(ending, "detach_from_gpus", first_only)


def an_exclusive_lease_gets_company(patch: pytest.MonkeyPatch) -> None:
    """A GPU does not look whether it is taken."""
    patch.setattr(ledger.Gpu, "exclusive", property(lambda _self: False))


def the_last_comes_first(patch: pytest.MonkeyPatch) -> None:
    """Equal priorities are served in the wrong order."""
    patch.setattr(queueing, "order_key", lambda priority, time, _aging: -time - priority * 1000)


def a_cooldown_is_forgotten_by_a_restart(patch: pytest.MonkeyPatch) -> None:
    """A GPU whose last holder may still be running is free after a restart."""
    patch.setattr(recovery, "_resume_cooldown", lambda *_, **__: None)


def a_dead_client_keeps_its_place(patch: pytest.MonkeyPatch) -> None:
    """Nobody gives up a request whose stream is gone."""
    patch.setitem(arbiter._ALARMS, timers.Clock.ABSENCE, lambda *_: None)


def a_cooldown_never_ends(patch: pytest.MonkeyPatch) -> None:
    """Its clock runs out and nothing happens."""
    patch.setitem(arbiter._ALARMS, timers.Clock.COOLDOWN, lambda *_: None)


def who_is_asked_for_an_idle_gpu_is_ended(patch: pytest.MonkeyPatch) -> None:
    """A holder that goes on is revoked, as after a drain."""
    ask = watchdog.request_yield

    def threaten(*arguments: Any, grace: float | None, **facts: Any) -> None:
        ask(*arguments, grace=5.0 if YieldReason.IDLE in arguments else grace, **facts)

    patch.setattr(watchdog, "request_yield", threaten)


MUTATIONS: dict[str, Plant] = {
    plant.__name__.replace("_", " "): plant
    for plant in (
        a_token_is_used_again,
        a_grant_is_lost_to_a_cancelled_waiter,
        a_waiter_is_granted_after_its_session_died,
        a_lost_gpu_stays_lost,
        a_late_timer_hits_the_next_holder,
        a_grant_is_offered_before_it_is_written,
        an_end_is_not_written,
        a_resize_is_not_written,
        a_restart_begins_the_hold_anew,
        a_restart_loop_keeps_dead_leases,
        a_failed_journal_loses_the_grants_on_their_way,
        a_mended_journal_is_not_written_anew,
        two_are_told_the_end,
        memory_of_one_gpu_leaks,
        an_exclusive_lease_gets_company,
        the_last_comes_first,
        a_cooldown_is_forgotten_by_a_restart,
        a_dead_client_keeps_its_place,
        a_cooldown_never_ends,
        who_is_asked_for_an_idle_gpu_is_ended,
    )
}
