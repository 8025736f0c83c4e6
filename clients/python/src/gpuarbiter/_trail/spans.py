"""From events to spans of time: what was held, what waited, and what happened at one moment.

Law: every span ends, and not before it began. What the history does not show is marked: a lease or a wait
that was cut off by its beginning, one that still lives at its end, and one that an arbiter which was started
anew knew nothing of any more.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from gpuarbiter._convert import enum_name
from gpuarbiter.v1 import admin_pb2

Event = admin_pb2.ListEventsResponse

_GRANTED = admin_pb2.EVENT_TYPE_GRANTED
_ENDED = admin_pb2.EVENT_TYPE_ENDED
_QUEUED = admin_pb2.EVENT_TYPE_QUEUED
_STARTED = admin_pb2.EVENT_TYPE_STARTED
_ENDS_A_WAIT = frozenset({_GRANTED, admin_pb2.EVENT_TYPE_DECLINED, admin_pb2.EVENT_TYPE_FAILED})
# They name a lease that has ended.
_AFTERMATH = frozenset(
    {
        admin_pb2.EVENT_TYPE_COOLDOWN_STARTED,
        admin_pb2.EVENT_TYPE_COOLDOWN_ENDED,
        admin_pb2.EVENT_TYPE_MEMORY_RECOVERED,
    }
)
# What is a moment of its own; the others are ends of spans, or too many to be of use.
MOMENTS = frozenset(
    {
        *_AFTERMATH,
        admin_pb2.EVENT_TYPE_HOLD_EXCEEDED,
        admin_pb2.EVENT_TYPE_YIELD_REQUESTED,
        admin_pb2.EVENT_TYPE_MEMORY_OVERUSE,
        admin_pb2.EVENT_TYPE_RESIZED,
        admin_pb2.EVENT_TYPE_DETACHED,
        admin_pb2.EVENT_TYPE_JOINED,
        admin_pb2.EVENT_TYPE_GPU_LOST,
        admin_pb2.EVENT_TYPE_GPU_RESTORED,
        admin_pb2.EVENT_TYPE_DRAINED,
        admin_pb2.EVENT_TYPE_RESUMED,
        admin_pb2.EVENT_TYPE_CONFIG_UPDATED,
        _STARTED,
        admin_pb2.EVENT_TYPE_RECOVERED,
        admin_pb2.EVENT_TYPE_STOPPING,
    }
)


@dataclass(slots=True)
class Span:
    """A lease, or the wait of a request. Times in microseconds since the epoch."""

    begin: int
    # The event that tells most of it.
    event: Event
    gpus: tuple[str, ...]
    end: int | None = None
    # How it ended: the detail of the event that ended it.
    outcome: str = ""
    # What is not known of it.
    marks: list[str] = field(default_factory=list)
    # Of a lease: how it was waited for.
    wait: "Span | None" = None
    # When an arbiter was started that has not spoken of it yet.
    doubted_at: int | None = None

    def close(self, at: int, outcome: str, *marks: str) -> None:
        """It ended."""
        self.end = max(at, self.begin)
        self.outcome = outcome
        self.marks += marks


@dataclass(slots=True)
class Trail:
    """What a history tells."""

    leases: list[Span] = field(default_factory=list)
    waits: list[Span] = field(default_factory=list)
    # With the lease that each is about, if that lived then.
    moments: list[tuple[Event, Span | None]] = field(default_factory=list)


def moment_of(event: Event) -> int:
    """When it happened, in microseconds since the epoch."""
    microseconds: int = event.event_time.ToMicroseconds()
    return microseconds


def read(events: Iterable[Event]) -> Trail:
    """The spans and moments of a history, oldest first."""
    reader = _Reader()
    for event in events:
        reader.take(event)
    return reader.over()


class _Reader:
    def __init__(self) -> None:
        self._trail = Trail()
        self._leases: dict[str, Span] = {}
        # By client and request id: two clients may choose the same.
        self._waits: dict[tuple[str, str], Span] = {}
        # The beginning and the end of the history.
        self._first: int | None = None
        self._last = 0

    def take(self, event: Event) -> None:
        at = moment_of(event)
        self._first = at if self._first is None else self._first
        self._last = max(self._last, at)
        key = (event.holder.client_id, event.request_id)
        if event.type == _STARTED:
            self._arbiter_started(at)
        elif event.type == _QUEUED:
            self._queued(key, event, at)
        lease = None
        if event.lease_id and event.type not in _AFTERMATH:
            lease = self._lease(event, at)
        wait = self._waits.pop(key, None) if event.type in _ENDS_A_WAIT else None
        if wait is not None:
            wait.close(at, enum_name(admin_pb2.EventType, event.type) if event.type == _GRANTED else event.detail)
            if event.type == _GRANTED and lease is not None:
                lease.wait = wait
        if event.type == _ENDED and lease is not None:
            del self._leases[event.lease_id]
            lease.close(at, event.detail)
        if event.type in MOMENTS:
            self._trail.moments.append((event, lease or self._leases.get(event.lease_id)))

    def _arbiter_started(self, at: int) -> None:
        """Those who waited wait no more; which leases came back, the next events tell."""
        for wait in self._waits.values():
            wait.close(at, "the arbiter was started again", "lost")
        self._waits.clear()
        for lease in self._leases.values():
            if lease.doubted_at is None:
                lease.doubted_at = at

    def _queued(self, key: tuple[str, str], event: Event, at: int) -> None:
        before = self._waits.pop(key, None)
        if before is not None:
            before.close(at, "asked again", "unknown")
        self._waits[key] = Span(at, event, tuple(event.gpus))
        self._trail.waits.append(self._waits[key])

    def _lease(self, event: Event, at: int) -> Span:
        """The lease that an event is about; it begins with it, unless it is known."""
        lease = self._leases.get(event.lease_id)
        if lease is not None and event.type == _GRANTED:
            lease.close(at, "granted again", "unknown")
            lease = None
        if lease is None:
            lease = Span(at, event, tuple(dict.fromkeys(event.gpus)))
            if event.type != _GRANTED:
                # Its grant is not in the history: it was before that begins.
                lease.begin = min(at, self._first or at)
                lease.marks.append("cut off")
            self._leases[event.lease_id] = lease
            self._trail.leases.append(lease)
        lease.doubted_at = None
        return lease

    def over(self) -> Trail:
        """Ends what has not ended."""
        for lease in self._leases.values():
            if lease.doubted_at is None:
                lease.close(self._last, "", "still live")
            else:
                lease.close(lease.doubted_at, "the arbiter was started again and did not know it", "unknown")
        for wait in self._waits.values():
            wait.close(self._last, "", "still waiting")
        return self._trail
