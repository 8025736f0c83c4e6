"""What the log says of a run: a table, the lowest first, and a warning that names those held and hardly used.

A GPU that nobody holds is in the table, but no reason to warn.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence

from gpuarbiter_server.analysis.model import Result, Thresholds
from gpuarbiter_server.analysis.statistics import low

log = logging.getLogger(__name__)

# More would drown the log; the rest is to be had over HTTP.
_MOST_ROWS = 50
_HEADER = ("GPU", "NAMESPACE", "HOLDER", "UTIL", "SCORE", "STATUS", "JUDGED", "SURE")


def report(results: Sequence[Result], thresholds: Thresholds) -> None:
    """Writes it."""
    if not results:
        log.info("no GPU has samples")
        return
    ordered = sorted(results, key=lambda each: each.score)
    for line in _table(ordered[:_MOST_ROWS]):
        log.info("%s", line)
    wasted = [each for each in low(results, thresholds) if each.gpu.holders]
    if wasted:
        named = ", ".join(
            f"{each.gpu.gpu_id} ({each.holder.path}, score {each.score:.0f})" for each in wasted[:_MOST_ROWS]
        )
        log.warning("%d of %d GPUs are held and score below %g: %s", len(wasted), len(results), thresholds.low, named)


def _table(results: Iterable[Result]) -> Iterator[str]:
    rows = [_HEADER, *(_row(each) for each in results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(result: Result) -> tuple[str, ...]:
    utilization = result.means.utilization
    return (
        result.gpu.gpu_id,
        result.holder.namespace or "-",
        result.holder.name or "-",
        "-" if utilization is None else f"{utilization:.0%}",
        f"{result.score:.1f}",
        result.status.value,
        result.shown.verdict.value + (" (model)" if result.opinion else ""),
        f"{result.shown.confidence:.2f}",
    )
