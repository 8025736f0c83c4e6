"""Asks one server of models one question at a time it may be asked, and knows how it is with it.

Law: within the limits of requests, and not while the server is left alone. Whatever goes wrong is a NoAnswerError.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpuarbiter_server.analysis import answer, prompt
from gpuarbiter_server.analysis.limits import Breaker, Budget
from gpuarbiter_server.analysis.model import Judgement, Language, Result, Thresholds
from gpuarbiter_server.analysis.outcomes import NoAnswerError, Outcome

if TYPE_CHECKING:
    from gpuarbiter_server.analysis.chat import Chat


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """How a model is asked, and what can change while it runs. Times are seconds."""

    enabled: bool = False
    model: str = ""
    # Whether GPUs that are well used are asked about, too.
    all_gpus: bool = False
    # Below this confidence an answer does not count.
    threshold: float = 0.7
    timeout: float = 30.0
    max_workers: int = 4
    max_requests_per_minute: int = 30
    max_requests_per_day: int = 2000
    max_answer_tokens: int = 1000
    cache: float = 3600.0
    language: Language = Language.ENGLISH
    thresholds: Thresholds = field(default_factory=Thresholds)


class KeyTroubleError(Exception):
    """The key cannot be had; says why, without it."""


class Asker:
    """One server.

    key: reads the key of the server, empty where there is none; on a thread; raises KeyTroubleError. clock: monotonic
    seconds.
    """

    def __init__(self, url: str, *, key: Callable[[], str], clock: Callable[[], float]) -> None:
        self._url = url
        self._key = key
        self._clock = clock
        self._trouble = ""
        self._budget = Budget()
        self._breaker = Breaker()
        self._settings = ModelSettings()
        self._chat: Chat | None = None
        self._chat_is_for: tuple[str, float] | None = None

    @property
    def trouble(self) -> str:
        """Why the last question had no answer; empty when it had one."""
        left = self._breaker.left(self._clock())
        return f"{self._trouble}; it is left alone for another {left:.0f} s" if left else self._trouble

    async def prepare(self, settings: ModelSettings) -> None:
        """Before the questions of a run: the key may be another one by now. NoAnswerError where none can be asked."""
        self._settings = settings
        try:
            wanted = (await asyncio.to_thread(self._key), settings.timeout)
            if self._chat_is_for != wanted:
                await self.close()
                self._chat = await asyncio.to_thread(self._connect, *wanted)
                self._chat_is_for = wanted
        except KeyTroubleError as error:
            self._trouble = str(error)
            raise NoAnswerError(Outcome.ERROR, self._trouble) from None
        except Exception as error:  # noqa: BLE001 -- as for answers; bad proxies and certificates are found here
            self._trouble = f"the library cannot be set up: {type(error).__name__}"
            raise NoAnswerError(Outcome.ERROR, self._trouble) from None

    async def ask(self, result: Result) -> Judgement:
        """What the model thinks of a GPU; NoAnswerError where it does not say."""
        if self._breaker.left(self._clock()):
            raise NoAnswerError(Outcome.REFUSED, self.trouble)
        try:
            judgement = await self._judgement(result)
        except NoAnswerError as error:
            self._trouble = str(error)
            if error.outcome is not Outcome.REFUSED:
                self._breaker.failed(self._clock(), asked_for=error.wait)
            raise
        self._trouble = ""
        self._breaker.worked()
        return judgement

    async def close(self) -> None:
        """Hangs up."""
        chat, self._chat, self._chat_is_for = self._chat, None, None
        if chat is not None:
            await chat.close()

    def _connect(self, key: str, timeout: float) -> "Chat":
        """Imported here: the library takes its time, and few have use for it."""
        from gpuarbiter_server.analysis.chat import Chat

        return Chat(self._url, key=key, timeout=timeout, spend=self._spend)

    async def _judgement(self, result: Result) -> Judgement:
        settings = self._settings
        assert self._chat is not None, "prepare() comes first"
        try:
            text = await self._chat.ask(
                settings.model,
                prompt.system(settings.language),
                prompt.question(result, settings.thresholds),
                schema=answer.SCHEMA,
                most_tokens=settings.max_answer_tokens,
            )
            return answer.read(text)
        except answer.BadAnswerError as error:
            raise NoAnswerError(Outcome.MALFORMED, str(error)) from None
        except NoAnswerError:
            raise
        except Exception as error:  # noqa: BLE001 -- whatever the library raises; what it says may hold the key
            raise NoAnswerError(Outcome.ERROR, type(error).__name__) from None

    def _spend(self) -> None:
        """Before each request, those that the library repeats too."""
        why = self._budget.take(
            self._clock(),
            per_minute=self._settings.max_requests_per_minute,
            per_day=self._settings.max_requests_per_day,
        )
        if why:
            raise NoAnswerError(Outcome.REFUSED, why)
