"""What a swarm's diaries and the arbiter's audit trail say, side by side.

The diaries have the monotonic clock, which all processes share, and are the clients' own word; the audit trail has
the order in which the arbiter decided.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from gpuarbiter.v1 import admin_pb2

# Wall times that were made of monotonic ones are not exact.
CLOSE_SECONDS = 0.02
# One level of priority for each second of waiting, the default.
AGING_SECONDS = 1.0

Line = dict[str, Any]
Event = admin_pb2.ListEventsResponse


@dataclass(frozen=True)
class Use:
    """One client's use of the GPU by its own word: from its grant to what it last did under it."""

    token: int
    begin: float
    end: float
    killed: bool


@dataclass(frozen=True)
class Asked:
    """What its client knows of a request."""

    priority: int
    # When the arbiter queued it, in Unix seconds; None where it was not granted, so that nobody was told.
    queued_at: float | None = None
    # When its client was killed, if that was its last request.
    killed_at: float | None = None


class Diaries:
    """What the clients and their parent wrote."""

    def __init__(self, folder: Path) -> None:
        self.clients = {path.stem.removeprefix("client-"): _lines(path) for path in folder.glob("client-*.jsonl")}
        swarm = _lines(folder / "swarm.jsonl")
        self.killed = {line["client"]: line for line in swarm if line["event"] == "killed"}
        self.over = any(line["event"] == "over" for line in swarm)

    def asked(self) -> dict[str, Asked]:
        """Every request, with what its client knew of it."""
        queued = {line["request"]: line["queued_at"] for line in self.all("granted")}
        found = {}
        for name, lines in self.clients.items():
            asks = [line for line in lines if line["event"] == "asks"]
            for line in asks:
                killed = self.killed[name]["since"] if name in self.killed and line is asks[-1] else None
                found[line["request"]] = Asked(line["priority"], queued.get(line["request"]), killed)
        return found

    def all(self, event: str) -> list[Line]:
        """Every client's lines of this event."""
        return [line for lines in self.clients.values() for line in lines if line["event"] == event]

    def uses(self) -> list[Use]:
        """Every use of the GPU, in the order of their beginnings."""
        found: dict[str, Use] = {}
        for lines in self.clients.values():
            for line in lines:
                request = line.get("request", "")
                if line["event"] == "granted":
                    found[request] = Use(line["token"], line["at"], line["at"], killed=True)
                elif line["event"] in {"uses", "releases"}:
                    use = found[request]
                    found[request] = Use(use.token, use.begin, line["at"], killed=line["event"] == "uses")
        return sorted(found.values(), key=lambda use: use.begin)

    def outcomes(self) -> dict[str, list[str]]:
        """What each request of a client that lived came to."""
        found: dict[str, list[str]] = {}
        for name, lines in self.clients.items():
            if name not in self.killed:
                for line in lines:
                    if line["event"] == "asks":
                        found[line["request"]] = []
                    elif line["event"] in {"released", "declined", "failed"}:
                        found[line["request"]].append(line["event"])
        return found


@dataclass
class Replay:
    """The audit trail, gone through once."""

    asked: dict[str, Asked]
    granted: int = 0
    declined: int = 0
    # Requests that did not end exactly once, with how they ended.
    odd_ends: dict[str, list[str]] = field(default_factory=dict)
    # Pairs of tickets of which the one that should have been second was first.
    disorder: list[str] = field(default_factory=list)
    compared: int = 0
    # Seconds from the SIGKILL of a holder to the next grant, where somebody waited.
    after_deaths: list[float] = field(default_factory=list)
    # Seconds from one grant to the next, where somebody waited all the time.
    between_grants: list[float] = field(default_factory=list)
    # Seconds in the queue, by priority.
    waits: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    # Requests in the queue: when the event was recorded, and its number.
    _waiting: dict[str, tuple[float, int]] = field(default_factory=dict)
    _ends: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    _death: float | None = None
    # The latest grant since which the queue was never empty.
    _before: float | None = None

    def take(self, event: Event) -> None:
        """The next event."""
        request, kind = event.request_id, admin_pb2.EventType.Name(event.type).removeprefix("EVENT_TYPE_")
        at = event.event_time.ToNanoseconds() / 1e9
        if kind == "QUEUED":
            self._waiting[request] = (at, event.sequence)
        elif kind == "GRANTED":
            self._take_grant(request, at, event.sequence)
        elif kind in {"DETACHED", "ENDED", "FAILED", "DECLINED"}:
            # A detached one cannot be granted anything: its client is dead.
            self._waiting.pop(request, None)
            if kind != "DETACHED":
                self._take_end(request, kind, at, event.detail)
        if not self._waiting:
            self._before = None

    def finish(self) -> None:
        """There are no more events."""
        self.odd_ends = {request: kinds for request, kinds in self._ends.items() if len(kinds) != 1}
        self.odd_ends |= {request: [] for request in self._waiting}

    def _take_grant(self, request: str, at: float, number: int) -> None:
        self.granted += 1
        if self._before is not None:
            self.between_grants.append(at - self._before)
        if self._death is not None:
            self.after_deaths.append(at - self._death)
        self._before, self._death = at, None
        since, number = self._waiting.pop(request, (at, number))
        if request in self.asked:
            self.waits[self.asked[request].priority].append(at - since)
            for other, (_, other_number) in self._waiting.items():
                if other in self.asked:
                    self._compare(request, number, other, other_number)

    def _take_end(self, request: str, kind: str, at: float, detail: str) -> None:
        self.declined += kind == "DECLINED"
        # A grant that its client did not live to see is taken back; the request's own end comes after.
        if "not taken" not in detail:
            self._ends[request].append(kind)
        if detail.startswith("HOLDER_DIED") and self._waiting:
            known = self.asked.get(request)
            self._death = known.killed_at if known is not None and known.killed_at is not None else at

    def _compare(self, winner: str, number: int, loser: str, loser_number: int) -> None:
        """Whether one who still waits should have been before the one that was granted. Numbers are the events'."""
        first, second = self.asked[winner], self.asked[loser]
        if first.priority == second.priority:
            right = number < loser_number
        elif first.queued_at is None or second.queued_at is None:
            return
        else:
            ahead = first.priority - second.priority - (first.queued_at - second.queued_at) / AGING_SECONDS
            if abs(ahead) < CLOSE_SECONDS:
                return
            right = ahead > 0
        self.compared += 1
        if not right:
            self.disorder.append(f"{winner} {first} went before {loser} {second}")


def replay(events: Iterable[Event], asked: dict[str, Asked]) -> Replay:
    """Checks the order of grants, and that each request ends once."""
    result = Replay(asked)
    for event in events:
        result.take(event)
    result.finish()
    return result


def percentile(values: list[float], share: float) -> float:
    """Such as 0.99; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def table(diaries: Diaries, trail: Replay, seconds: float) -> str:
    """The figures of a run."""
    uses = diaries.uses()
    gaps = [later.begin - earlier.end for earlier, later in pairwise(uses)]
    deaths = Counter(line["doing"] for line in diaries.killed.values())
    rows = [
        ("requests", f"{len(diaries.all('asks'))}"),
        ("leases granted", f"{trail.granted} ({trail.granted / seconds:.0f} a second)"),
        ("declined", f"{trail.declined}"),
        ("killed while holding / waiting", f"{deaths['holding']} / {deaths['waiting']}"),
        ("last use to next use, p50 / p99", f"{_ms(percentile(gaps, 0.5))} / {_ms(percentile(gaps, 0.99))}"),
        (
            "SIGKILL of a holder to next grant, p50 / max",
            f"{_ms(percentile(trail.after_deaths, 0.5))} / {_ms(max(trail.after_deaths, default=0.0))}",
        ),
        (
            "grant to grant while somebody waits, p50 / max",
            f"{_ms(percentile(trail.between_grants, 0.5))} / {_ms(max(trail.between_grants, default=0.0))}",
        ),
        ("pairs compared for their order", f"{trail.compared}"),
    ]
    for priority, waits in sorted(trail.waits.items()):
        rows.append((f"wait at priority {priority}, p50 of {len(waits)}", _ms(percentile(waits, 0.5))))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


def _lines(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text().splitlines()]
