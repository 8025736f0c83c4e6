"""Whether the CPU comes to the same result as the GPU, looked at on a fraction of the tasks.

Law: a check only looks on. What the caller gets is the GPU's result, whatever the CPU's function, the comparison
or the callback does; each comparison counts once, and a mismatch is never silent.
"""

import functools
import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from gpuarbiter import _comparing

logger = logging.getLogger("gpuarbiter")

Compare = Literal["exact", "allclose"] | Callable[[Any, Any], bool]


@dataclass(frozen=True, slots=True)
class ConsistencyCounts:
    """What came of the checks so far: checked = matched + mismatched + failed.

    Attributes:
        failed: the CPU's function or the comparison raised.
    """

    checked: int = 0
    matched: int = 0
    mismatched: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The CPU came to another result than the GPU."""

    task_type: str
    gpu_result: Any
    cpu_result: Any


def _fresh() -> random.Random:
    return random.Random()  # noqa: S311 -- a sample, no secret


class ConsistencyCheck:
    """Runs a fraction of the tasks on the CPU, too, and compares. One may serve many tasks and threads.

    Args:
        rate: the fraction, 0 to 1.
        compare: "exact" (equal), "allclose" (numbers nearly so), or a function of the GPU's and the CPU's result
            that says whether they agree. The first two look into sequences, mappings, numpy arrays and tensors.
        on_mismatch: called with a Mismatch; for an AsyncArbiter it may be a coroutine function.
        relative, absolute: how far apart numbers may be for "allclose": absolute + relative × the CPU's.
        random: where the choice of tasks comes from; `random.Random(7)` makes it repeatable.

    Raises:
        ValueError: the rate or `compare` is none.
    """

    def __init__(
        self,
        rate: float = 0.01,
        compare: Compare = "exact",
        on_mismatch: Callable[[Mismatch], Any] | None = None,
        *,
        relative: float = _comparing.RELATIVE,
        absolute: float = _comparing.ABSOLUTE,
        random: random.Random | None = None,
    ) -> None:
        if not 0 <= rate <= 1:
            raise ValueError(f"rate is {rate!r}; write a fraction from 0 to 1")
        if compare == "allclose":
            self._agree: Callable[[Any, Any], bool] = functools.partial(
                _comparing.close, relative=relative, absolute=absolute
            )
        elif compare == "exact":
            self._agree = _comparing.exact
        elif callable(compare):
            self._agree = compare
        else:
            raise ValueError(f'compare is {compare!r}; write "exact", "allclose" or a function')
        self.rate = rate
        self.on_mismatch = on_mismatch
        self._random = random or _fresh()
        self._lock = threading.Lock()
        self._matched = self._mismatched = self._failed = 0

    @property
    def counts(self) -> ConsistencyCounts:
        """What came of the checks so far."""
        with self._lock:
            checked = self._matched + self._mismatched + self._failed
            return ConsistencyCounts(checked, self._matched, self._mismatched, self._failed)

    def due(self) -> bool:
        """Whether the next task is to be checked."""
        with self._lock:
            return self._random.random() < self.rate

    def judge(self, task_type: str, gpu_result: Any, cpu_result: Any) -> Mismatch | None:
        """Compares, counts and logs; the mismatch, for the callback."""
        try:
            agree = bool(self._agree(gpu_result, cpu_result))
        except Exception as error:  # noqa: BLE001 -- it is the caller's function
            self.failed(task_type, error)
            return None
        with self._lock:
            self._matched += agree
            self._mismatched += not agree
        if agree:
            return None
        counts = self.counts
        logger.warning(
            "consistency check of %s: the CPU's result is not the GPU's (%d of %d checked so far)",
            task_type,
            counts.mismatched,
            counts.checked,
        )
        return Mismatch(task_type, gpu_result, cpu_result)

    def failed(self, task_type: str, error: Exception) -> None:
        """The CPU's function, or the comparison, raised."""
        with self._lock:
            self._failed += 1
        logger.warning("consistency check of %s failed: %r", task_type, error, exc_info=error)
