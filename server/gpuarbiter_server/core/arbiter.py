"""The arbiter: one event in, effects out.

    handle(event, now) -> effects       next_deadline() -> when to send a Tick       snapshot(now)

Law: an event is handled whole before the next; an error that a call meets is an effect for that call,
and changes nothing else. Time only passes with a Tick, so that what arrived first is read first.
"""

from collections.abc import Callable, Iterable
from typing import Any

from gpuarbiter_server.core import (
    cooldown,
    holding,
    journaling,
    machine,
    notices,
    operators,
    recovery,
    requests,
    saving,
    snapshots,
    watchdog,
    withdrawal,
)
from gpuarbiter_server.core import events as ev
from gpuarbiter_server.core.census import Census
from gpuarbiter_server.core.effects import Effect, Failed
from gpuarbiter_server.core.errors import ArbiterError
from gpuarbiter_server.core.granting import schedule
from gpuarbiter_server.core.journal import Journal
from gpuarbiter_server.core.model import GpuSpec
from gpuarbiter_server.core.policy import Settings
from gpuarbiter_server.core.state import State
from gpuarbiter_server.core.timers import Clock
from gpuarbiter_server.core.views import SnapshotView

_HANDLERS: dict[type, Callable[[State, Any, float], None]] = {
    ev.Acquire: requests.acquire,
    ev.StreamClosed: requests.stream_closed,
    ev.Release: holding.release,
    ev.CancelStream: holding.cancel_stream,
    ev.Renew: holding.renew,
    ev.Resize: holding.resize,
    ev.CheckFence: holding.check_fence,
    ev.ReportWork: holding.report_work,
    ev.Drain: operators.drain,
    ev.Resume: operators.resume,
    ev.Revoke: operators.revoke,
    ev.Configure: operators.configure,
    ev.Shutdown: operators.shut_down,
    ev.AskToYield: watchdog.ask_to_yield,
    ev.ReadingTaken: machine.reading_taken,
    ev.GpuFailed: machine.gpu_failed,
    ev.DriverChanged: machine.driver_changed,
    ev.DescendantsSeen: machine.descendants_seen,
    ev.ProcessExited: machine.process_exited,
    ev.Recover: recovery.recover,
    ev.JournalWritten: journaling.journal_written,
    ev.JournalFailed: journaling.journal_failed,
    ev.JournalRetried: journaling.journal_retried,
}

_ALARMS: dict[Clock, Callable[[State, Any, float], object]] = {
    Clock.WAIT: withdrawal.expire_wait,
    Clock.ABSENCE: withdrawal.give_up,
    Clock.NOTICE: notices.tell,
    Clock.HOLD: watchdog.hold_passed,
    Clock.PATIENCE: watchdog.patience_passed,
    Clock.GRACE: watchdog.grace_passed,
    Clock.COOLDOWN: cooldown.expire,
    Clock.STALE: machine.readings_overdue,
    Clock.RECOVERY: machine.recovery_overdue,
    Clock.PUBLISH: notices.publish,
}


class Arbiter:
    """Decides who uses which GPU.

    specs: the GPUs, at least one. now: monotonic seconds. first_token: above every fencing token that was
    ever granted. id_key: secret that marks lease ids as ours, 1 to 64 bytes. instance_id: names this start.
    tokens_until: the last fencing token that a journal has reserved; nothing is granted then before it is
    written there. None: there is no journal, and nothing outlives the arbiter.
    """

    def __init__(
        self,
        specs: Iterable[GpuSpec],
        settings: Settings,
        now: float,
        *,
        first_token: int,
        id_key: bytes,
        instance_id: str,
        tokens_until: int | None = None,
    ) -> None:
        journal = Journal(enabled=tokens_until is not None, tokens_until=tokens_until or 0)
        self._state = State(
            specs, settings, first_token=first_token, id_key=id_key, instance_id=instance_id, journal=journal
        )
        machine.watch_readings(self._state, now)

    @property
    def revision(self) -> int:
        """Rises with every change of state."""
        return self._state.revision

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._state.settings

    @property
    def idle(self) -> bool:
        """Whether nobody holds or waits for anything."""
        return not self._state.leases.live and not len(self._state.queue)

    def handle(self, event: ev.Event, now: float) -> list[Effect]:
        """Handles one event whole; returns what is to be done, in order."""
        state = self._state
        if isinstance(event, ev.Tick):
            for clock, subject in state.timers.due(now):
                _ALARMS[clock](state, subject, now)
                self._settle(now)
        else:
            try:
                _HANDLERS[type(event)](state, event, now)
            except ArbiterError as error:
                state.emit(Failed(event.call, error))  # type: ignore[union-attr]
            self._settle(now)
        effects, state.effects = state.effects, []
        return effects

    def next_deadline(self) -> float | None:
        """When the next Tick is wanted; None: not before something else happens."""
        return self._state.timers.next()

    def snapshot(self, now: float, *, gpus: tuple[str, ...] = (), max_tickets: int = 100) -> SnapshotView:
        """The state for people and dashboards; ArbiterError UNKNOWN_GPU for a name that is none."""
        return snapshots.snapshot(self._state, now, gpus=gpus, max_tickets=max_tickets)

    def census(self, now: float) -> Census:
        """The state in figures, for scrapes."""
        return Census(self._state, now)

    def _settle(self, now: float) -> None:
        """Draws the consequences of what has just been done."""
        state = self._state
        while state.dirty:
            state.dirty = False
            schedule(state, now)
        if state.notices_due:
            notices.plan(state, now)
        saving.flush(state)
        if state.changed:
            state.changed = False
            state.revision += 1
