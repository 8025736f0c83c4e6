"""Runs the analysis at intervals and when it is asked for, and keeps what came of it.

Law: one run at a time; who asks during a run gets what that comes to. A run that fails leaves the last result where it
is, marked stale, and says why. What takes long happens on a thread, beside the loop. History has a bound. Advice comes
on top of results that are there already: advice that fails or lags changes none of them.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from gpuarbiter_server.analysis import scoring
from gpuarbiter_server.analysis.features import features
from gpuarbiter_server.analysis.judgement import judge
from gpuarbiter_server.analysis.model import GpuWindow, Language, Result, Sample, Thresholds, Weights
from gpuarbiter_server.analysis.report import report
from gpuarbiter_server.analysis.sources import Source, SourceError

log = logging.getLogger(__name__)

# After so many intervals without a new result the last one is stale, whatever kept the next from coming.
_STALE_INTERVALS = 2
# Advice that is late by more than this is not waited for.
_GRACE = 1.0
_FIGURES = ("utilization", "memory_bandwidth", "memory_used_bytes", "power_watts", "sm_clock_hertz")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the analysis goes by, and what can change while it runs. Times are seconds."""

    interval: float = 300.0
    # A run that takes longer is given up.
    timeout: float = 60.0
    weights: Weights = field(default_factory=Weights)
    thresholds: Thresholds = field(default_factory=Thresholds)
    language: Language = Language.ENGLISH


@dataclass(frozen=True, slots=True)
class Run:
    """One look at all GPUs."""

    # Seconds since 1970.
    at: float
    # How long it took.
    seconds: float
    results: tuple[Result, ...]
    # GPUs with samples, but of nothing that counts.
    unscored: int
    # What it went by.
    thresholds: Thresholds


class AnalysisError(Exception):
    """A run failed; says why, for people."""


class Advise(Protocol):
    """Looks over the results of a run before they count."""

    def __call__(self, results: tuple[Result, ...], *, fresh: bool, seconds: float) -> Awaitable[tuple[Result, ...]]:
        """The same GPUs, within so many seconds. fresh: nothing of earlier runs is to be used."""


async def unadvised(results: tuple[Result, ...], *, fresh: bool, seconds: float) -> tuple[Result, ...]:
    """Leaves them as they are."""
    _ = fresh, seconds
    return results


class Analysis:
    """The results of a source's GPUs.

    first: seconds until the first run. clock: monotonic seconds; wall: seconds since 1970. observe: is told of each run
    whether it went well, and its seconds. on_run: is handed each run that went well, and must not take time over it.
    """

    def __init__(
        self,
        source: Source,
        settings: Settings,
        *,
        history: int,
        first: float,
        clock: Callable[[], float],
        wall: Callable[[], float],
        observe: Callable[[bool, float], None] = lambda _ok, _seconds: None,
        advise: Advise = unadvised,
        on_run: Callable[[Run], None] = lambda _run: None,
    ) -> None:
        self.settings = settings
        # Why the last run failed; empty when it did not.
        self.fault = ""
        # Newest first.
        self.runs: deque[Run] = deque(maxlen=max(1, history))
        self.source = source
        self._first = first
        self._clock = clock
        self._wall = wall
        self._observe = observe
        self._advise = advise
        self._on_run = on_run
        self._running: asyncio.Task[Run] | None = None
        self._news = asyncio.Event()

    @property
    def latest(self) -> Run | None:
        """The last run that went well."""
        return self.runs[0] if self.runs else None

    @property
    def stale(self) -> bool:
        """Whether the last result is older than it should be."""
        if self.latest is None:
            return False
        return bool(self.fault) or self._wall() - self.latest.at > _STALE_INTERVALS * self.settings.interval

    async def run_forever(self) -> None:
        """Runs at intervals, without end."""
        await asyncio.sleep(self._first)
        while True:
            try:
                await self.run()
            except AnalysisError as error:
                log.warning("%s", error)
            await self._interval()

    async def run(self, *, advised: bool | None = None) -> Run:
        """Looks now, or waits for the look that is under way; AnalysisError when it fails.

        advised: True: with fresh advice; False: without any.
        """
        if self._running is None:
            self._running = asyncio.ensure_future(self._run(advised))
            self._running.add_done_callback(self._done)
        # Who goes away does not stop it for the others.
        return await asyncio.shield(self._running)

    def configure(self, settings: Settings) -> None:
        """What it goes by from now on; an interval counts from the last run on schedule."""
        self.settings = settings
        self._news.set()

    async def close(self) -> None:
        """Ends what is under way."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        await self.source.close()

    async def _interval(self) -> None:
        """Waits for as long as the settings say, whenever they say it."""
        began = self._clock()
        while (left := began + self.settings.interval - self._clock()) > 0:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._news.wait()

    def _done(self, task: "asyncio.Task[Run]") -> None:
        self._running = None
        if not task.cancelled():
            task.exception()  # Nobody may be waiting for it any more.

    async def _run(self, advised: bool | None) -> Run:
        settings, began = self.settings, self._clock()
        try:
            async with asyncio.timeout(settings.timeout):
                windows = await self.source.windows()
                results = await asyncio.to_thread(evaluate, windows, settings)
        except TimeoutError:
            self._failed(f"it took longer than {settings.timeout:g} s", began)
        except SourceError as error:
            self._failed(str(error), began)
        except Exception as error:
            log.exception("the analysis failed")
            self._failed(repr(error), began)
        if advised is not False:
            left = began + settings.timeout - self._clock()
            results = await self._with_advice(results, fresh=bool(advised), seconds=left)
        seconds = self._clock() - began
        run = Run(self._wall(), seconds, results, len(windows) - len(results), settings.thresholds)
        self.runs.appendleft(run)
        self.fault = ""
        self._observe(True, seconds)
        report(run.results, run.thresholds)
        try:
            self._on_run(run)
        except Exception:
            log.exception("the run could not be handed on")
        return run

    async def _with_advice(self, results: tuple[Result, ...], *, fresh: bool, seconds: float) -> tuple[Result, ...]:
        try:
            async with asyncio.timeout(seconds + _GRACE):
                return await self._advise(results, fresh=fresh, seconds=seconds)
        except TimeoutError:
            log.warning("no advice within %.0f s: the results stay as they are", seconds)
        except Exception:
            log.exception("no advice: the results stay as they are")
        return results

    def _failed(self, why: str, began: float) -> None:
        self.fault = why
        self._observe(False, self._clock() - began)
        kept = "; the last result is kept and marked stale" if self.latest else ""
        raise AnalysisError(f"the analysis by {self.source.name} failed: {why}{kept}") from None


def evaluate(windows: list[GpuWindow], settings: Settings) -> tuple[Result, ...]:
    """The results; GPUs of which nothing that counts is known have none."""
    found = []
    for gpu in windows:
        scored = scoring.score(gpu, settings.weights)
        if scored.value is not None:
            seen = features(gpu)
            found.append(
                Result(
                    gpu=replace(gpu, samples=()),
                    means=Sample(**{name: gpu.mean(name) for name in _FIGURES}),
                    score=scored.value,
                    status=scoring.status(scored.value, settings.thresholds),
                    missing=scored.missing,
                    seen=seen,
                    judgement=judge(gpu, scored, seen, settings.weights, settings.language),
                )
            )
    return tuple(found)
