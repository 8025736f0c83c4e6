"""The page of metrics in process: how long it takes, and for how long at a stretch it holds the interpreter.

Times are those of the thread's CPU, so that whatever else runs on the machine does not count.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.figures import verdict
from bench.world import World
from gpuarbiter_server.core.model import EventType
from gpuarbiter_server.runtime.clock import monotonic
from gpuarbiter_server.telemetry.gauges import Gauges
from gpuarbiter_server.telemetry.metrics import Metrics
from gpuarbiter_server.telemetry.page import Page


@dataclass(frozen=True)
class Made:
    """A page that was made: its lines, and the seconds of each of its parts."""

    lines: int
    parts: tuple[float, ...]

    @property
    def whole(self) -> float:
        return sum(self.parts)

    @property
    def longest(self) -> float:
        return max(self.parts)


class Scraped:
    """A world, what it counts, and its page."""

    def __init__(self, gpus: int, tasks: int, waiters: int) -> None:
        self.world = World(gpus, tasks, waiters, shared=True)
        self.metrics = Metrics(self.world.known, monotonic)
        self._page = Page(self.metrics, Gauges(self.world.known, self.world.sources))

    def load(self, leases: int) -> None:
        """So many leases end and others begin; every GPU is looked at."""
        for _ in range(leases):
            for recorded in self.world.step():
                self.metrics.observe(recorded)
        self.world.look()

    def page(self) -> Made:
        """Makes one."""
        times, lines = [], 0
        parts = self._page()
        while True:
            began = time.thread_time()
            part = next(parts, None)
            times.append(time.thread_time() - began)
            if part is None:
                return Made(lines, tuple(times))
            lines += part.count(b"\n")

    def snapshot(self) -> float:
        """Seconds of the two looks at the core that a page begins its gauges with."""
        census = self.world.sources.census()
        return _seconds(lambda: (census.waiters(str, 1000), census.leases(str), census.gpus()))


def small(*, quick: bool) -> tuple[str, ...]:
    """One GPU, three task types."""
    count = 5 if quick else 200
    scraped = Scraped(1, 3, 16)
    cold = scraped.page()
    loaded, idle = [], []
    for _ in range(count):
        scraped.load(20)
        loaded.append(scraped.page())
        idle.append(scraped.page())
    after = statistics.median(page.whole for page in loaded)
    still = statistics.median(page.whole for page in idle)
    worst = sorted(page.whole for page in loaded)[int(0.99 * count)]
    return (
        f"The page of metrics, 1 GPU and 3 task types, {loaded[-1].lines:,} lines",
        f"first {cold.whole * 1e3:.2f} ms, idle {still * 1e3:.2f} ms ({1 / still:,.0f} a second)",
        f"after 20 leases {after * 1e3:.2f} ms, p99 {worst * 1e3:.2f} ms ({1 / after:,.0f} a second)",
        verdict("below 1 ms and 1,000 a second", passed=after < 1e-3),
    )


def large(*, quick: bool) -> tuple[str, ...]:
    """Eight GPUs, twenty task types, all GPUs full and a queue."""
    count, waiters = (3, 100) if quick else (50, 500)
    scraped = Scraped(8, 20, waiters)
    first = scraped.page()
    loaded, idle, snapshots = [], [], []
    for _ in range(count):
        scraped.load(50)
        snapshots.append(scraped.snapshot())
        loaded.append(scraped.page())
        idle.append(scraped.page())
    longest = statistics.median(page.longest for page in loaded)
    worst = max(page.longest for page in loaded)
    still = statistics.median(page.longest for page in idle)
    size = f"{loaded[-1].lines:,} lines in {len(loaded[-1].parts) - 1} parts"
    look = f"the look at the core alone {statistics.median(snapshots) * 1e3:.2f} ms"
    whole = f"the whole page {statistics.median(page.whole for page in loaded) * 1e3:.1f} ms"
    return (
        f"The longest stretch of a scrape, 8 GPUs and 20 task types, {waiters} waiters, {size}",
        f"first page {first.longest * 1e3:.2f} ms, idle {still * 1e3:.2f} ms; {look}",
        f"after 50 leases {longest * 1e3:.2f} ms, at most {worst * 1e3:.2f} ms; {whole}",
        verdict("at most 2 ms", passed=max(longest, first.longest) <= 2e-3),
    )


def counting(*, quick: bool) -> tuple[str, ...]:
    """Counter updates from the hot path."""
    count = 2_000 if quick else 50_000
    scraped = Scraped(1, 3, 16)
    (granted,) = [each for each in scraped.world.step() if each.type is EventType.GRANTED]
    metrics = scraped.metrics
    inc = metrics.message_counter("received", "AcquireRequest")

    def observe() -> None:
        for _ in range(count):
            metrics.observe(granted)

    def bare() -> None:
        for _ in range(count):
            inc()

    observing = count / statistics.median(_seconds(observe) for _ in range(5))
    counted = count / statistics.median(_seconds(bare) for _ in range(5))
    return (
        "Counting, updates a second of one thread's CPU",
        f"a counter alone {counted:,.0f}",
        f"a grant (a counter and a histogram) {observing:,.0f}",
        verdict("100,000 or more", passed=observing >= 100_000),
    )


def _seconds(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began
