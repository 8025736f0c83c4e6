"""Asks a model about the GPUs of a run, beside what the rules think of them.

Law: what the rules say is never changed, whatever the model does: an answer that is not there in time, not valid or not
sure enough is none. An answer is text for people, and causes nothing. Each GPU that is asked about counts once.
"""

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from gpuarbiter_server.analysis import prompt
from gpuarbiter_server.analysis.asking import Asker, ModelSettings
from gpuarbiter_server.analysis.model import Judgement, Language, Result, Status, Thresholds
from gpuarbiter_server.analysis.outcomes import NoAnswerError, Outcome

log = logging.getLogger(__name__)

_MOST_REMEMBERED = 4096
_LOW = (Status.IDLE, Status.LOW)
# What became of asking, by the index of the GPU.
_Answers = dict[int, tuple[Outcome, Judgement | None]]
# What makes two questions the same.
_Asked = tuple[str, Language, Thresholds, bytes]
_FINE = {Outcome.OK, Outcome.UNSURE, Outcome.CACHED}


class Opinions:
    """What the model of one server thinks; the server is None where there is none.

    clock: monotonic seconds. count: is told of each GPU what became of asking about it.
    """

    def __init__(
        self,
        asker: Asker | None,
        settings: ModelSettings,
        *,
        clock: Callable[[], float],
        count: Callable[[str], None],
    ) -> None:
        self._asker = asker
        self._settings = settings
        self._clock = clock
        self._count = count
        # Answers by what was asked, with the time; the oldest first.
        self._remembered: OrderedDict[_Asked, tuple[float, Judgement]] = OrderedDict()

    @property
    def enabled(self) -> bool:
        """Whether a model is asked."""
        return self._settings.enabled and self._asker is not None

    @property
    def trouble(self) -> str:
        """Why the last question had no answer; empty when it had one, or none is asked."""
        return self._asker.trouble if self._asker is not None and self.enabled else ""

    def configure(self, settings: ModelSettings) -> None:
        """How it is asked from now on."""
        self._settings = settings

    async def advise(self, results: tuple[Result, ...], *, fresh: bool, seconds: float) -> tuple[Result, ...]:
        """The results with its opinions, as far as there are some within that time. fresh: none of earlier runs."""
        asker, settings = self._asker, self._settings
        about = [index for index, each in enumerate(results) if settings.all_gpus or each.status in _LOW]
        if asker is None or not settings.enabled or not about:
            return results
        # The lowest first: not all may have their turn.
        about.sort(key=lambda index: results[index].score)
        answers: _Answers = {}
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                # Of thousands of GPUs it takes a while.
                asked = await asyncio.to_thread(_asked, results, about, settings)
                if not fresh:
                    answers |= self._earlier(asked, settings)
                left = {index: each for index, each in asked.items() if index not in answers}
                if left:
                    await self._ask(asker, results, left, settings, answers)
        return self._concluded(results, about, settings, answers)

    async def close(self) -> None:
        """Hangs up."""
        if self._asker is not None:
            await self._asker.close()

    async def _ask(
        self,
        asker: Asker,
        results: tuple[Result, ...],
        left: dict[int, _Asked],
        settings: ModelSettings,
        answers: _Answers,
    ) -> None:
        """Puts into answers what comes, as it comes."""
        try:
            await asker.prepare(settings)
        except NoAnswerError as error:
            answers |= dict.fromkeys(left, (error.outcome, None))
            return
        turns = iter(left.items())

        async def work() -> None:
            for index, asked in turns:
                try:
                    judgement = await asker.ask(results[index])
                except NoAnswerError as error:
                    answers[index] = error.outcome, None
                else:
                    answers[index] = Outcome.OK, judgement
                    self._remember(asked, judgement)

        async with asyncio.TaskGroup() as workers:
            for _ in range(min(settings.max_workers, len(left))):
                workers.create_task(work())

    def _concluded(
        self, results: tuple[Result, ...], about: list[int], settings: ModelSettings, answers: _Answers
    ) -> tuple[Result, ...]:
        """The results with what is sure enough; counts and logs what became of each question."""
        became: Counter[Outcome] = Counter()
        opinions: dict[int, Judgement] = {}
        for index in about:
            outcome, judgement = answers.get(index, (Outcome.TIMEOUT, None))
            if judgement is not None and judgement.confidence >= settings.threshold:
                opinions[index] = judgement
            elif outcome is Outcome.OK:
                outcome = Outcome.UNSURE
            became[outcome] += 1
            self._count(outcome.value)
        level = logging.INFO if became.keys() <= _FINE else logging.WARNING
        told = ", ".join(f"{number} {outcome.value}" for outcome, number in became.items())
        why = f" ({self.trouble})" if self.trouble else ""
        log.log(level, "%s judged %d of %d GPUs: %s%s", settings.model, len(opinions), len(about), told, why)
        return tuple(replace(each, opinion=opinions.get(index)) for index, each in enumerate(results))

    def _earlier(self, asked: dict[int, _Asked], settings: ModelSettings) -> _Answers:
        """Answers that still count, about GPUs that looked the same."""
        oldest = self._clock() - settings.cache
        found = ((index, self._remembered.get(each)) for index, each in asked.items())
        return {index: (Outcome.CACHED, kept[1]) for index, kept in found if kept is not None and kept[0] > oldest}

    def _remember(self, asked: _Asked, judgement: Judgement) -> None:
        self._remembered[asked] = self._clock(), judgement
        self._remembered.move_to_end(asked)
        if len(self._remembered) > _MOST_REMEMBERED:
            self._remembered.popitem(last=False)


def _asked(results: tuple[Result, ...], about: list[int], settings: ModelSettings) -> dict[int, _Asked]:
    """What is asked about each."""
    how = (settings.model, settings.language, settings.thresholds)
    return {index: (*how, prompt.likeness(results[index])) for index in about}
