"""A hundred watchers of Snapshot, of whom fifty do not read (P8): what they do to hand-offs, and to memory.

Two arbiters take turns: one that is watched all the time, and one that nobody watches. What the second one's memory
grows by in the same rounds is what hand-offs themselves cost.
"""

import contextlib
import statistics
import sys
from pathlib import Path

from bench import loop, sessions
from bench.drawing import Chart, draw
from bench.figures import Row, both, quantile, spread, verdict
from bench.servers import Server, as_promised, running

_PICTURE = Path(__file__).with_name("growth-watchers.svg")
_WATCHERS = 100
# Allocators give and take; a backlog of fifty who do not read would be far above.
_FLAT_BYTES = 2 << 20


def rows(*, quick: bool) -> list[Row]:
    """A row for the hand-offs, and one for the memory; the picture shows the hand-offs as watchers are added."""
    levels, rounds, seconds = ([20], 2, 0.3) if quick else ([25, 50, _WATCHERS], 15, 1.5)
    with contextlib.ExitStack() as stack:
        alone, watched = (stack.enter_context(as_promised("queue_limit=100")) for _ in range(2))
        # As many hand-offs as at the other, so that both have the same behind them.
        _level(alone, seconds)
        grown, there = [_level(watched, seconds)], 0
        for level in levels:
            _level(alone, seconds)
            command = [sys.executable, "-m", "bench.watching", watched.target, str(level - there)]
            stack.enter_context(running(command))
            there = level
            grown.append(_level(watched, seconds))
        before = [server.resident_bytes() for server in (alone, watched)]
        turns = [[_gaps(server, seconds) for server in (alone, watched)] for _ in range(rounds)]
        after = [server.resident_bytes() for server in (alone, watched)]
    if not quick:
        _draw([0, *levels], grown)
    ratios = [quantile(seen, 0.99) / quantile(unseen, 0.99) for unseen, seen in turns]
    unseen, seen = ([gap for turn in turns for gap in turn[side]] for side in (0, 1))
    more = [now - then for then, now in zip(before, after, strict=True)]
    what = f"{there} watchers of Snapshot, half of them not reading"
    return [
        (
            f"P8 Hand-off among 16 clients, {what}",
            f"without: {both(unseen)}",
            both(seen),
            f"p99 {spread(ratios, 2)} ×; " + verdict("at most 1.2 ×", passed=statistics.median(ratios) <= 1.2),
        ),
        (
            f"P8 Growth of memory in {rounds * seconds:.0f} s of hand-offs, {what}",
            f"without: {more[0] / 1024:.0f} KiB",
            f"{more[1] / 1024:.0f} KiB",
            f"{(more[1] - more[0]) / 1024:.0f} KiB more; "
            + verdict(f"flat (at most {_FLAT_BYTES >> 20} MiB more)", passed=more[1] - more[0] <= _FLAT_BYTES),
        ),
    ]


def _gaps(server: Server, seconds: float) -> list[float]:
    return loop.run(sessions.hand_offs(server, seconds)).gaps


def _level(server: Server, seconds: float) -> tuple[float, float, float]:
    """With those who watch now: the gap's median and 99th percentile in ms, and the share of a core."""
    before = server.cpu_seconds()
    gaps = _gaps(server, 2 * seconds)
    cpu = (server.cpu_seconds() - before) / (2 * seconds)
    return quantile(gaps, 0.5) * 1e3, quantile(gaps, 0.99) * 1e3, cpu * 100


def _draw(levels: list[int], grown: list[tuple[float, float, float]]) -> None:
    steps = [f"{level:,}" for level in levels]
    p50, p99, cpu = (list(enumerate(column)) for column in zip(*grown, strict=True))
    title = "watchers of Snapshot, half of them not reading"
    draw(
        _PICTURE,
        [
            Chart("Hand-off among 16 clients, ms", title, {"p99": p99, "p50": p50}, steps),
            Chart("CPU of the arbiter, % of a core", title, {"": cpu}, steps),
        ],
    )
