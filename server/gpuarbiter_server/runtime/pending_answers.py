"""Answers that wait for the journal: which, and until when.

Law: a turn's changes are handed over to be written in one commit; what answers for them waits until it is known whether
they are. What nobody waits for costs no commit of its own.
"""

import asyncio
from collections import deque

from gpuarbiter_server.core import effects as fx
from gpuarbiter_server.core.events import Call, JournalFailed, JournalWritten
from gpuarbiter_server.core.records import Closed, GpuSaved, LeaseDropped
from gpuarbiter_server.runtime.journal_writer import JournalWriter

# What waits for the commit of its turn. Of a new grant the core itself sees to that. What stands whether it is
# durable or not is answered when the journal fails; the rest once it is back, or never.
_AFTER_COMMIT = (fx.Released, fx.Done, fx.Resized, fx.Drained)
_STANDS = (fx.Released, fx.Done)
# Changes that nobody waits for, unless an answer does: a crash that undoes the end of a lease costs a grace period and
# no more. What it leaves of the GPU (cooldown, newest token) is in the same commit.
_CAN_WAIT = (Closed, LeaseDropped, GpuSaved)


class PendingAnswers:
    """Those of one runtime."""

    def __init__(self, journal: JournalWriter) -> None:
        self._journal = journal
        # Each waits for the commit of the change of its number.
        self._held: deque[tuple[int, fx.Effect]] = deque()
        self._held_calls: set[Call] = set()
        # Calls whose release is answered before it is durable.
        self._early: set[Call] = set()
        # The last change that was handed over; whether it is known what became of it.
        self._handed = 0
        self._settled = asyncio.Event()
        self._settled.set()
        # From a failure of the journal until it is written again.
        self._failing = False

    def answer_early(self, call: Call) -> None:
        """What this call releases is answered before that is durable."""
        self._early.add(call)

    def forget(self, call: Call) -> None:
        """This call is over."""
        self._early.discard(call)

    async def until_settled(self) -> None:
        """Returns when all that was handed over to the journal is written and answered, or known not to be."""
        self._journal.hurry()
        await self._settled.wait()

    def hand_over(self, wanted: list[fx.Effect]) -> list[fx.Effect]:
        """Hands the changes of a turn over to the journal; returns what need not wait for it."""
        saves = [effect for effect in wanted if isinstance(effect, fx.Save)]
        lost = False
        if saves:
            self._handed = saves[-1].number
            changes = [save.change for save in saves]
            soon = not all(isinstance(change, _CAN_WAIT) for change in changes)
            lost = not self._journal.write(self._handed, changes, soon=soon)
            if not lost:
                self._settled.clear()
        now: list[fx.Effect] = []
        for effect in wanted:
            if self._waits(effect, lost=lost):
                self._journal.hurry()
                self._held.append((self._handed, effect))
                self._held_calls.add(effect.call)  # type: ignore[union-attr]
            elif not isinstance(effect, fx.Save):
                now.append(effect)
        return now

    def _waits(self, effect: fx.Effect, *, lost: bool) -> bool:
        """Whether an effect must not be carried out before what has been handed over is written.

        lost: the changes of its turn were not taken, because the journal has just failed.
        """
        if getattr(effect, "call", None) in self._held_calls or getattr(effect, "claims", False):
            return True
        if isinstance(effect, fx.Released) and effect.call in self._early and not effect.lingers:
            return False
        if isinstance(effect, _STANDS):
            return not self._settled.is_set() and not self._failing
        return isinstance(effect, _AFTER_COMMIT) and (lost or not self._settled.is_set())

    def let_go(self, event: JournalWritten | JournalFailed) -> list[fx.Effect]:
        """What waited for this. Of what a failure leaves open, only what stands in any case."""
        self._failing = isinstance(event, JournalFailed)
        if isinstance(event, JournalFailed) or event.number >= self._handed:
            self._settled.set()
        held, self._held = self._held, deque()
        free = []
        for number, effect in held:
            if isinstance(effect, _STANDS) if isinstance(event, JournalFailed) else number <= event.number:
                free.append(effect)
            else:
                self._held.append((number, effect))
        self._held_calls = {effect.call for _, effect in self._held}  # type: ignore[union-attr]
        return free
