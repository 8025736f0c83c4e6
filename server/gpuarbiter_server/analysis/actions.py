"""Which GPUs call for an action: held, hardly used, run after run, and not dealt with lately.

Law: pure. Score, status and the judgement of the rules decide; no answer of a model is looked at. What is remembered
has a bound. Times are seconds; `now` is monotonic.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from gpuarbiter_server.analysis.model import Holder, Result, Status, Verdict

# GPUs with their holders that are remembered from run to run.
_MOST_TARGETS = 20_000


@dataclass(frozen=True, slots=True)
class Rules:
    """When something is done about a GPU."""

    # LOW or IDLE: what its status has to be, or lower.
    status: Status = Status.LOW
    # How sure the analysis has to be of what it thinks of the GPU, 0 to 1.
    confidence: float = 0.5
    # So many runs one after the other have to find it so.
    after_runs: int = 2
    # Runs that follow sooner than so many seconds count as one: anybody may ask for some, one after the other.
    apart: float = 0.0
    # Whether a GPU that is judged active is left alone: one that works in bursts, or little but steadily.
    spare_active: bool = True
    # After an action, its GPU and holder are left alone for so long; unless they did well in between.
    hold_down: float = 3600.0


@dataclass(frozen=True, slots=True)
class Finding:
    """A GPU that its holder hardly uses."""

    result: Result
    holder: Holder
    # Whether it is dealt with already: nothing new is to be told of it.
    repeated: bool
    # Whether every GPU of its lease is found so; True where no lease is known.
    whole: bool

    @property
    def name(self) -> str:
        """How people tell it from others."""
        return f"{self.result.gpu.gpu_id} ({self.holder.path}, score {self.result.score:.0f})"

    def facts(self, at: float) -> dict[str, Any]:
        """What a control webhook is told. at: of its run, seconds since 1970."""
        return {
            "gpu_id": self.result.gpu.gpu_id,
            "pod": self.holder.pod,
            "namespace": self.holder.namespace,
            "hostname": self.result.gpu.hostname,
            "score": round(self.result.score, 2),
            "status": self.result.status.value,
            "timestamp": moment(at),
            "lease": self.holder.lease_id,
            "client_id": self.holder.client_id,
        }


class _Target(NamedTuple):
    hostname: str
    gpu_id: str
    # Of the holder: its lease, or where none is known its namespace and pod.
    who: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was found of a target, up to the last run that saw its GPU."""

    runs: int = 0
    # When the last of them was.
    counted: float = -math.inf
    # When it was dealt with.
    at: float | None = None


class Watch:
    """Follows the runs of an analysis."""

    def __init__(self) -> None:
        self._seen: dict[_Target, _Seen] = {}

    def findings(self, results: Sequence[Result], rules: Rules, now: float) -> list[Finding]:
        """What is found in a run, the lowest score first."""
        there = {(each.gpu.hostname, each.gpu.gpu_id) for each in results}
        # A GPU that has no samples for once has not done well.
        seen = {
            target: before
            for target, before in self._seen.items()
            if target[:2] not in there and _lately(before, rules, now)
        }
        due: list[tuple[Result, Holder, bool]] = []
        for result, holder in _wasteful(results, rules):
            target = _target(result, holder)
            before = self._seen.get(target, _Seen())
            counts, repeated = now - before.counted >= rules.apart, _lately(before, rules, now)
            runs = before.runs + counts
            acts = runs >= rules.after_runs
            if acts:
                due.append((result, holder, repeated))
            seen[target] = _Seen(runs, now if counts else before.counted, now if acts and not repeated else before.at)
        self._seen = dict(list(seen.items())[-_MOST_TARGETS:])
        found = Counter(holder.lease_id for _, holder, _ in due)
        due.sort(key=lambda each: each[0].score)
        return [
            Finding(result, holder, repeated, not holder.lease_id or found[holder.lease_id] >= holder.gpus)
            for result, holder, repeated in due
        ]


def moment(at: float) -> str:
    """Seconds since 1970 as people and programs read them."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _wasteful(results: Iterable[Result], rules: Rules) -> Iterator[tuple[Result, Holder]]:
    statuses = (Status.IDLE,) if rules.status is Status.IDLE else (Status.IDLE, Status.LOW)
    for each in results:
        judged = each.judgement
        if each.status not in statuses or judged.confidence < rules.confidence:
            continue
        if rules.spare_active and judged.verdict is Verdict.ACTIVE:
            continue
        window = each.gpu.steps * each.gpu.step
        for holder in each.gpu.holders:
            # Who came during the window is not to blame for all of it.
            if holder.held is None or holder.held >= window:
                yield each, holder


def _target(result: Result, holder: Holder) -> _Target:
    who = (holder.lease_id,) if holder.lease_id else (holder.namespace, holder.pod)
    return _Target(result.gpu.hostname, result.gpu.gpu_id, who)


def _lately(seen: _Seen, rules: Rules, now: float) -> bool:
    """Whether it was dealt with within the hold-down."""
    return seen.at is not None and now - seen.at < rules.hold_down
