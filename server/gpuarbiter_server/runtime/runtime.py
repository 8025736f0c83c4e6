"""Owns the core: collects events, handles a turn of them at once, and carries the effects out.

Law: everything here happens on the event loop's thread; threads hand their events over with
`submit_threadsafe`. A turn handles all events that have arrived and then lets time pass, so that what
arrived during a stall is read before anything expires. Observers cannot disturb it: what they raise is
logged and forgotten. An event that the core fails on (a defect) costs the call that it came from, not the
effects of the others. With a journal, what answers for changes waits for them: see PendingAnswers.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Protocol

from gpuarbiter_server.core import effects as fx
from gpuarbiter_server.core.arbiter import Arbiter
from gpuarbiter_server.core.census import Census
from gpuarbiter_server.core.errors import ArbiterError, ErrorReason
from gpuarbiter_server.core.events import (
    Acquire,
    Call,
    Event,
    JournalFailed,
    JournalWritten,
    Recover,
    StreamClosed,
    Tick,
)
from gpuarbiter_server.core.views import SnapshotView
from gpuarbiter_server.runtime.journal_writer import JournalWriter
from gpuarbiter_server.runtime.machine import Machine
from gpuarbiter_server.runtime.pending_answers import PendingAnswers

log = logging.getLogger(__name__)

Deliver = Callable[[fx.Effect], None]

# A deadline that is noticed this much too late, in seconds, means that the process did not run; then what
# has arrived in its sockets, and clients that dial again, get this long to be heard before time counts.
STALL_SECONDS = 0.5
_CATCH_UP = 1.0

# What answers a call for good. A Granted that is final is not among them: its stream still has to say
# whether it was written.
_LAST_ANSWERS = (
    fx.Failed,
    fx.Declined,
    fx.Ended,
    fx.Released,
    fx.Renewed,
    fx.Resized,
    fx.FenceChecked,
    fx.Drained,
    fx.Done,
    fx.Asked,
)


class Observer(Protocol):
    """Reads what happens; influences nothing."""

    def observe(self, recorded: fx.Recorded) -> None:
        """Something happened."""


class Runtime:
    """The shell around the core."""

    def __init__(
        self,
        arbiter: Arbiter,
        *,
        clock: Callable[[], float],
        observers: Iterable[Observer] = (),
        journal: JournalWriter | None = None,
        on_serving: Callable[[fx.Serving], None] = lambda _: None,
        stall: float = STALL_SECONDS,
    ) -> None:
        self._arbiter = arbiter
        self._machine: Machine
        self._clock = clock
        self._observers = list(observers)
        self._journal = journal
        self._on_serving = on_serving
        self._pending = None if journal is None else PendingAnswers(journal)
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[Event] = deque()
        self._turn_planned = False
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0
        # After a stall: until when nothing expires.
        self._catch_up_until: float | None = None
        self._stall = stall
        self._calls: dict[Call, Deliver] = {}
        self._last_call = 0
        self._changed = asyncio.Event()
        self._seen_revision = arbiter.revision

    @property
    def revision(self) -> int:
        """Rises with every change of state."""
        return self._arbiter.revision

    # -- events in --

    def open(self, deliver: Deliver, *, early: bool = False) -> Call:
        """A new call; its effects go to `deliver`, which must not block or raise.

        early: what it releases is answered before that is durable.
        """
        self._last_call += 1
        self._calls[self._last_call] = deliver
        if early and self._pending is not None:
            self._pending.answer_early(self._last_call)
        return self._last_call

    def close(self, call: Call, *, delivered: bool) -> None:
        """The stream of an acquire is over; fine when it had its last answer."""
        if self._calls.pop(call, None) is not None:
            self.submit(StreamClosed(call, delivered))

    async def ask(self, make: Callable[[Call], Event]) -> fx.Effect:
        """Makes a call that has one answer, and waits for it; raises the ArbiterError of a failed one."""
        answer: asyncio.Future[fx.Effect] = self._loop.create_future()
        self.submit(make(self.open(lambda effect: None if answer.done() else answer.set_result(effect))))
        effect = await answer
        if isinstance(effect, fx.Failed):
            raise effect.error
        return effect

    def submit(self, event: Event) -> None:
        """Something happened."""
        self._inbox.append(event)
        if not self._turn_planned:
            self._turn_planned = True
            self._loop.call_soon(self._turn)

    def submit_threadsafe(self, event: Event) -> None:
        """Something happened on another thread; fine after the loop has ended."""
        with suppress(RuntimeError):  # What a closed loop answers.
            self._loop.call_soon_threadsafe(self.submit, event)

    def start(self, machine: Machine) -> None:
        """Begins to let time pass, on this machine."""
        self._machine = machine
        if self._journal is not None:
            self._journal.start(self._told)
        self._set_timer()

    def hang_up(self) -> None:
        """The arbiter stops: every stream that is still there ends UNAVAILABLE; the leases are not touched."""
        error = ArbiterError(ErrorReason.SHUTDOWN, "the arbiter has stopped", retry_after=1.0)
        for call, deliver in list(self._calls.items()):
            deliver(fx.Failed(call, error))
        self._calls.clear()

    # -- state out --

    def snapshot(self, *, gpus: tuple[str, ...] = (), max_tickets: int = 100) -> SnapshotView:
        """The state now; ArbiterError UNKNOWN_GPU for a name that is none."""
        return self._arbiter.snapshot(self._clock(), gpus=gpus, max_tickets=max_tickets)

    def census(self) -> Census:
        """The state in figures, for scrapes."""
        return self._arbiter.census(self._clock())

    async def changed_since(self, revision: int) -> None:
        """Returns when the state is no longer that of this revision."""
        while self._arbiter.revision == revision:
            await self._changed.wait()

    async def until_idle(self) -> None:
        """Returns when nobody holds or waits for anything."""
        while not self._arbiter.idle:
            await self.changed_since(self._arbiter.revision)

    async def recover(self, left: Recover) -> None:
        """Takes up what an earlier start left; returns when what came of it is written, or known not to be."""
        # Whatever it raises keeps the arbiter from starting: without its leases it must not.
        self._finish_turn(self._arbiter.handle(left, self._clock()))
        await self.until_settled()

    async def until_settled(self) -> None:
        """Returns when all that was handed over to the journal is written and answered, or known not to be."""
        if self._pending is not None:
            await self._pending.until_settled()

    # -- a turn --

    def _told(self, event: Event) -> None:
        """The journal has news, for which somebody waits: a turn at once."""
        self._inbox.append(event)
        self._turn()

    def _turn(self) -> None:
        self._turn_planned = False
        inbox = self._inbox
        wanted: list[fx.Effect] = []
        free: list[fx.Effect] = []
        while inbox:
            event = inbox.popleft()
            wanted += self._handle(event, self._clock())
            if isinstance(event, JournalWritten | JournalFailed) and self._pending is not None:
                free += self._pending.let_go(event)
        wanted += self._let_time_pass(self._clock())
        self._finish_turn(wanted, free)

    def _finish_turn(self, wanted: list[fx.Effect], free: Iterable[fx.Effect] = ()) -> None:
        """Carries out what was held back and is free now, and then what the turn wants and need not wait."""
        arbiter = self._arbiter
        now = wanted if self._pending is None else self._pending.hand_over(wanted)
        for effect in [*free, *now]:
            try:
                self._carry_out(effect)
            except Exception:
                log.exception("could not carry out %r", effect)
        self._set_timer()
        if arbiter.revision != self._seen_revision:
            self._seen_revision = arbiter.revision
            self._changed.set()
            self._changed = asyncio.Event()

    def _let_time_pass(self, now: float) -> list[fx.Effect]:
        """Lets what is due happen; after a stall only once what arrived during it has had time to be read."""
        deadline = self._arbiter.next_deadline()
        if deadline is None or deadline > now:
            return []
        if self._catch_up_until is None and now - deadline > self._stall:
            log.warning("stalled for %.1f s: nothing expires before what has arrived meanwhile is read", now - deadline)
            self._catch_up_until = now + _CATCH_UP
        if self._catch_up_until is not None and now < self._catch_up_until:
            return []
        self._catch_up_until = None
        return self._handle(Tick(), now)

    def _handle(self, event: Event, now: float) -> list[fx.Effect]:
        try:
            return self._arbiter.handle(event, now)
        except Exception:
            log.exception("the core failed on %r", event)
        call: Call | None = getattr(event, "call", None)
        if call is None:
            return []
        if isinstance(event, Acquire):
            self.submit(StreamClosed(call, delivered=False))
        return [fx.Failed(call, ArbiterError(ErrorReason.UNSPECIFIED, "the arbiter failed on this call; see its log"))]

    def _set_timer(self) -> None:
        deadline = self._arbiter.next_deadline()
        if deadline is None:
            return  # one that is set rings for nothing
        wake_at = max(deadline, self._catch_up_until or deadline)
        if self._timer is not None:
            # Most deadlines are later than the one before: to ring too early costs less than a new timer each turn.
            if self._rings_at <= wake_at:
                return
            self._timer.cancel()
        self._rings_at = wake_at
        self._timer = self._loop.call_later(max(0.0, wake_at - self._clock()), self._ring)

    def _ring(self) -> None:
        """Time has passed: a turn, after whatever the loop has read meanwhile."""
        self._timer = None
        if not self._turn_planned:
            self._turn_planned = True
            self._loop.call_soon(self._turn)

    def _carry_out(self, effect: fx.Effect) -> None:
        match effect:
            case fx.Recorded():
                self._tell_observers(effect)
            case fx.Watch(process):
                self._machine.watch(process)
            case fx.Unwatch(process):
                self._machine.unwatch(process)
            case fx.Refresh(gpus):
                self._machine.refresh(gpus)
            case fx.SampleFast(gpus):
                self._machine.sample_fast(gpus)
            case fx.Serving():
                self._on_serving(effect)
            case fx.Save():
                raise AssertionError("only a core with a journal saves")
            case _:
                last = isinstance(effect, _LAST_ANSWERS)
                deliver = self._calls.pop(effect.call, None) if last else self._calls.get(effect.call)
                if last and self._pending is not None:
                    self._pending.forget(effect.call)
                if deliver is not None:
                    deliver(effect)

    def _tell_observers(self, recorded: fx.Recorded) -> None:
        for observer in self._observers:
            try:
                observer.observe(recorded)
            except Exception:
                log.exception("an observer failed on %s", recorded.type.name)
