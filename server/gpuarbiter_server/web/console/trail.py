"""What happened lately: the events, and who held which GPU when.

Law: bounded. What is left out is the oldest; a lease of which the history shows no end is ended when it is seen to be
gone. Each change has a number, so that who has seen all up to one is told the rest.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, NamedTuple

from gpuarbiter_server.core.model import EventType
from gpuarbiter_server.core.views import LeaseView
from gpuarbiter_server.store.history import HistoryEvent
from gpuarbiter_server.web.console.state import Moment

# How far back it goes.
SECONDS = 900.0
_MOST_SPANS = 2000
_MOST_EVENTS = 500
_MOST_MARKS = 20
# The history tells of a grant, and of an end, a moment later than the state; after so many seconds it will not.
_LATE = 3.0
_PATIENCE = 10.0
# One comes every few seconds for each lease, and says nothing new.
_NO_NEWS = frozenset({EventType.RENEWED})
# What is marked on a lease.
_MARKS = frozenset(
    {
        EventType.YIELD_REQUESTED,
        EventType.HOLD_EXCEEDED,
        EventType.MEMORY_OVERUSE,
        EventType.RESIZED,
        EventType.JOINED,
        EventType.DETACHED,
        EventType.RECOVERED,
    }
)


@dataclass(slots=True)
class _Span:
    """A lease. Moments are seconds since 1970."""

    lease: str
    task: str
    client: str
    namespace: str
    gpus: tuple[str, ...]
    begin: float
    # Under which it was last changed.
    number: int
    waited: float | None = None
    end: float | None = None
    # How it ended, and what was said of it.
    how: str = ""
    detail: str = ""
    # The moment, the kind, and what was said of it.
    marks: list[tuple[float, str, str]] = field(default_factory=list)
    # When it was last seen among the live ones.
    seen: float = 0.0

    def text(self) -> str:
        said = {
            "id": self.lease,
            "task": self.task,
            "client": self.client,
            "namespace": self.namespace,
            "gpus": self.gpus,
            "begin": self.begin,
            "waited": self.waited,
            "end": self.end,
            "how": self.how,
            "detail": self.detail,
            "marks": self.marks,
        }
        return _json({name: value for name, value in said.items() if value not in ("", None, [])})


class _Kept(NamedTuple):
    number: int
    text: str


class Trail:
    """Reads events, and compares them with the leases that live."""

    def __init__(self) -> None:
        # The last event of the history that was read.
        self.sequence = 0
        self._open: dict[str, _Span] = {}
        self._closed: deque[_Kept] = deque(maxlen=_MOST_SPANS)
        self._events: deque[_Kept] = deque(maxlen=_MOST_EVENTS)

    def take(self, number: int, event: HistoryEvent) -> None:
        """The next event; what is known is passed over."""
        if event.sequence <= self.sequence:
            return
        self.sequence = event.sequence
        said = event.recorded
        if said.type in _NO_NEWS:
            return
        self._events.append(_Kept(number, _event(event)))
        if said.type is EventType.GRANTED and len(self._open) < _MOST_SPANS:
            self._open[said.lease_id] = _Span(
                said.lease_id,
                said.task_type,
                said.holder.client_id if said.holder else "",
                said.holder.namespace if said.holder else "",
                said.gpus,
                event.time,
                number,
                waited=said.waited,
                seen=event.time,
            )
            return
        span = self._open.get(said.lease_id)
        if span is None:
            return
        if said.type is EventType.ENDED:
            self._close(number, span, event.time, said.end_reason.name, said.detail)
        elif said.type in _MARKS and len(span.marks) < _MOST_MARKS:
            why = said.yield_reason.name if said.yield_reason else said.detail
            span.marks.append((round(event.time, 2), said.type.name, why))
            span.number = number

    def compare(
        self, number: int, now: float, shown: Iterable[LeaseView], lives: Callable[[str], bool], moment: Moment
    ) -> None:
        """Begins leases that the history did not show the grant of; ends those that live no more, whatever it shows."""
        for lease in shown:
            if lease.lease_id not in self._open and now - moment(lease.granted_at) > _LATE:
                self._open[lease.lease_id] = _Span(
                    lease.lease_id,
                    lease.task_type,
                    lease.holder.client_id,
                    lease.holder.namespace,
                    tuple(grant.spec.key for grant in lease.gpus),
                    moment(lease.granted_at),
                    number,
                    waited=round(lease.queue_wait, 2),
                )
        for span in list(self._open.values()):
            if lives(span.lease):
                span.seen = now
            elif now - span.seen > _PATIENCE:
                self._close(number, span, span.seen, "UNKNOWN", "")

    def spans_after(self, number: int) -> Iterator[str]:
        """The leases that changed after that, as JSON."""
        yield from _after(self._closed, number)
        yield from (span.text() for span in self._open.values() if span.number > number)

    def events_after(self, number: int) -> Iterator[str]:
        """The events that came after that, as JSON, oldest first."""
        return _after(self._events, number)

    def _close(self, number: int, span: _Span, end: float, how: str, detail: str) -> None:
        del self._open[span.lease]
        span.end, span.how, span.detail = max(end, span.begin), how, detail
        self._closed.append(_Kept(number, span.text()))


def _after(kept: deque[_Kept], number: int) -> Iterator[str]:
    newer = list(takewhile(lambda each: each.number > number, reversed(kept)))
    return (each.text for each in reversed(newer))


def _event(event: HistoryEvent) -> str:
    said = event.recorded
    shown: dict[str, Any] = {
        "n": event.sequence,
        "at": round(event.time, 3),
        "type": said.type.name,
        "task": said.task_type,
        "client": said.holder.client_id if said.holder else "",
        "namespace": said.holder.namespace if said.holder else "",
        "gpus": said.gpus,
        "lease": said.lease_id,
        "request": said.request_id,
        "detail": said.detail,
        "outcome": said.outcome,
        "end": said.end_reason.name if said.end_reason else "",
        "yield": said.yield_reason.name if said.yield_reason else "",
        "waited": said.waited,
        "held": said.held,
        "reason": said.place.reason.name if said.place else "",
    }
    return _json({name: value for name, value in shown.items() if value not in ("", None, ())})


def _json(said: object) -> str:
    return json.dumps(said, separators=(",", ":"))
