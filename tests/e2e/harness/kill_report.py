"""What the diaries of clients say that have lived through the deaths of their arbiter.

A hold is what its holder says: from the moment that it knew of its grant until it began to give it back, or knew that
it was lost. What it did while it was uncertain counts too: the arbiter may give the GPU to nobody else in that time.
"""

import json
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from e2e.harness.kill_lives import Death
from e2e.harness.swarm_report import percentile

Line = dict[str, Any]

# A client needs up to two seconds to find an arbiter that is back; one that lives less long may be missed.
BACK_SECONDS = 2.0
# A holder that lives by its stream gives up 5 s after its line broke, and a release in vain after 5 s: so an outage of
# this length, and the time to find the arbiter again, may cost it.
LONG_OUTAGE_SECONDS = 3.0
# For so long after it, a loss may be put down to it; and only one of these: the holder gave up by its own clock, found
# nobody to give its lease to, or asked again for a lease that nobody had joined in time.
_AFTERMATH_SECONDS = 12.0
_EXCUSABLE = frozenset(
    {("lost", "DISCONNECTED"), ("lost", "TTL_EXPIRED"), ("not released", ""), ("failed", "LEASE_ENDED")}
)


@dataclass
class Hold:
    """One lease by its holder's word."""

    client: str
    request: str
    token: int
    gpu: str
    # When the arbiter granted it, by its own word, and when its holder knew.
    granted: float
    begin: float
    end: float = float("inf")
    uncertain: list[float] = field(default_factory=list)
    mended: list[float] = field(default_factory=list)
    # "lost", "released" or "not released", and why.
    outcome: str = ""
    detail: str = ""


@dataclass
class Wait:
    """One request on its way to its lease, by its client's word."""

    queued: float | None = None
    granted: float | None = None
    # When its client had to ask again by itself.
    failed: list[float] = field(default_factory=list)


class Report:
    """All holds and waits, and what is wrong with them."""

    def __init__(self, folder: Path, deaths: Sequence[Death]) -> None:
        self.deaths = deaths
        self.holds: list[Hold] = []
        self.waits: dict[str, Wait] = defaultdict(Wait)
        self.broken: list[str] = []
        self.excused: list[str] = []
        self.clients = self.left = 0
        for path in sorted(folder.glob("client-*.jsonl")):
            self.clients += 1
            self._read(path.stem, [json.loads(line) for line in path.read_text().splitlines()])
        self.holds.sort(key=lambda hold: hold.begin)
        self._check_tokens()
        self._check_overlaps()

    # -- what happened --

    @property
    def held_through(self) -> list[Hold]:
        """Leases whose holder lived through a death of the arbiter with them."""
        return [hold for hold in self.holds if self._dies_in(hold.begin, hold.end)]

    @property
    def resumed(self) -> list[Hold]:
        """Those of them whose line broke and stood again."""
        return [hold for hold in self.held_through if hold.mended]

    @property
    def waited_through(self) -> list[Wait]:
        """Requests that had a place in the queue when the arbiter died, and were granted after that."""
        return [
            wait
            for wait in self.waits.values()
            if wait.queued is not None and wait.granted is not None and self._dies_in(wait.queued, wait.granted)
        ]

    def resumes(self) -> list[tuple[float, float]]:
        """For each death with a lease that was joined again before the next one: seconds from death and start."""
        mended = sorted(at for hold in self.holds for at in hold.mended)
        found = []
        for death, following in pairwise([*self.deaths, None]):
            assert death is not None
            place = bisect_left(mended, death.at)
            if place < len(mended) and (following is None or mended[place] < following.at):
                found.append((mended[place] - death.at, mended[place] - death.started))
        return found

    @property
    def told_later(self) -> list[Hold]:
        """Leases that were on the disk when the arbiter died, whose holder heard of them from the next one."""
        return [hold for hold in self.holds if self._dies_in(hold.granted, hold.begin)]

    def overlaps(self) -> list[str]:
        """Pairs of holds of one GPU at a time."""
        return [line for line in self.broken if line.startswith("overlap")]

    def _dies_in(self, begin: float, end: float) -> bool:
        return any(begin < death.at < end for death in self.deaths)

    # -- reading --

    def _read(self, client: str, lines: list[Line]) -> None:
        holds: dict[str, Hold] = {}
        for line in lines:
            if line["event"] == "leaves":
                self.left += 1
            else:
                self._take(client, line, holds)
        asked = {line["request"] for line in lines if line["event"] == "asks"}
        refused = {line["request"] for line in lines if line["event"] == "failed" and not line["transient"]}
        for request in asked - holds.keys() - refused:
            self.broken.append(f"{client}: request {request} came to nothing")
        self.broken += [f"no end: {hold}" for hold in holds.values() if not hold.outcome]
        self.holds += holds.values()

    def _take(self, client: str, line: Line, holds: dict[str, Hold]) -> None:
        event, request, at = line["event"], line["request"], line["at"]
        wait, hold = self.waits[request], holds.get(request)
        match event:
            case "queued":
                wait.queued = wait.queued or at
            case "failed":
                wait.failed.append(at)
                if not line["transient"]:
                    self._lament(client, line)
            case "granted":
                if hold is not None:
                    self.broken.append(f"{client}: two grants of one request: {hold}, {line}")
                wait.granted = at
                granted = line["granted_wall"] - line["wall"] + at
                holds[request] = Hold(client, request, line["token"], line["gpu"], granted, at)
            case "out of memory":
                self.broken.append(f"{client}: {line}")
            case "uncertain" | "mended" | "lost" | "releases" | "released" | "not released":
                assert hold is not None, line
                self._take_of_hold(client, line, hold)

    def _take_of_hold(self, client: str, line: Line, hold: Hold) -> None:
        match line["event"]:
            case "uncertain":
                hold.uncertain.append(line["at"])
            case "mended":
                hold.mended.append(line["at"])
            case "lost":
                hold.end, hold.outcome, hold.detail = line["at"], "lost", line["reason"]
                self._lament(client, line)
            case "releases":
                hold.end = min(hold.end, line["at"])
            case "released":
                hold.outcome = hold.outcome or "released"
                # Twice when the arbiter died between its end and the answer; but always by this release.
                if line["reason"] != "RELEASED" and hold.outcome == "released":
                    self._lament(client, line)
            case "not released":
                hold.outcome, hold.detail = hold.outcome or "not released", line["reason"]
                self._lament(client, line)

    def _lament(self, client: str, line: Line) -> None:
        """What must not be, unless the arbiter was away for longer than leases last."""
        excusable = (line["event"], line["reason"]) in _EXCUSABLE
        if excusable and any(begin <= line["at"] <= end + _AFTERMATH_SECONDS for begin, end in self._long_outages()):
            self.excused.append(f"{client}: {line}")
        else:
            self.broken.append(f"{client}: {line}")

    def _long_outages(self) -> list[tuple[float, float]]:
        found = []
        begin = self.deaths[0].at if self.deaths else 0.0
        for death, following in pairwise([*self.deaths, None]):
            assert death is not None
            if death.served is None or (following is not None and following.at - death.served < BACK_SECONDS):
                continue
            if death.served - begin > LONG_OUTAGE_SECONDS:
                found.append((begin, death.served))
            begin = following.at if following is not None else 0.0
        return found

    # -- checking --

    def _check_tokens(self) -> None:
        holders = defaultdict(list)
        for hold in self.holds:
            holders[hold.token].append(hold)
        self.broken += [f"token repeated: {holds}" for holds in holders.values() if len(holds) > 1]

    def _check_overlaps(self) -> None:
        by_gpu = defaultdict(list)
        for hold in self.holds:
            by_gpu[hold.gpu].append(hold)
        for holds in by_gpu.values():
            for earlier, later in pairwise(holds):
                if earlier.end > later.begin:
                    self.broken.append(f"overlap: {earlier}, {later}")
                if earlier.token >= later.token:
                    self.broken.append(f"token not risen: {earlier}, {later}")


_FATES = (
    "joined again",
    "given back before that",
    "did not notice (detached, or ended in that moment)",
    "nobody there to give it back to",
    "lost",
)


def _fate(hold: Hold) -> str:
    """What became of a lease that was held when the arbiter died: just one of these."""
    joined, meanwhile, unnoticed, in_vain, lost = _FATES
    if hold.outcome == "lost":
        return lost
    if hold.mended:
        return joined
    if hold.outcome == "not released":
        return in_vain
    return meanwhile if hold.uncertain else unnoticed


def table(report: Report) -> str:
    """The figures of a run."""
    through = Counter(_fate(hold) for hold in report.held_through)
    waited = report.waited_through
    again = [wait for wait in report.waits.values() if wait.failed]
    away = [death.served - death.at for death in report.deaths if death.served is not None]
    resumes = report.resumes()
    kinds = Counter(death.kind for death in report.deaths)
    rows = [("SIGKILLs", f"{len(report.deaths)}")]
    rows += [(f"  {kind}", f"{count}") for kind, count in sorted(kinds.items())]
    rows += [
        ("leases granted", f"{len(report.holds)}"),
        ("held through a kill", f"{through.total()}"),
        *((f"  {fate}", f"{through[fate]}") for fate in _FATES),
        ("lost or not released, the arbiter being away for too long", f"{len(report.excused)}"),
        ("granted before a kill, told after it", f"{len(report.told_later)}"),
        ("waits that went on through a kill", f"{len(waited)}"),
        ("requests whose client had to ask again itself", f"{len(again)}"),
        ("tokens repeated or not rising", f"{sum(line.startswith('token') for line in report.broken)}"),
        ("overlapping exclusive holds", f"{len(report.overlaps())}"),
        ("SIGKILL to serving again, p50 / max", _both(away)),
        ("SIGKILL to first lease joined again, p50 / max", _both([after for after, _ in resumes])),
        ("start to first lease joined again, p50 / max", _both([after for _, after in resumes])),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def _both(values: list[float]) -> str:
    return f"{percentile(values, 0.5):.2f} / {max(values, default=0.0):.2f} s"
