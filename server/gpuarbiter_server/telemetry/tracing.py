"""A trace for each lease: `gpu_lease.acquire`, `gpu_lease.hold`, `gpu_lease.memory_recovery`.

Spans are made when they end, from what was recorded, with a start that lies in the past. The context of a hold is
reserved at its grant, so that others can link to it while it lasts. Both spans are children of the caller's; where
there is none, the acquire is the root, and the hold a child of that.

Law: what is not sampled costs a look at the caller's flags, or one decision of the sampler; nothing here waits.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gpuarbiter_server.core.effects import Place, Recorded
from gpuarbiter_server.core.model import EventType
from gpuarbiter_server.telemetry import spans
from gpuarbiter_server.telemetry.series import Exemplar
from gpuarbiter_server.telemetry.span_maker import Event, SpanMaker

ACQUIRE = "gpu_lease.acquire"
HOLD = "gpu_lease.hold"
MEMORY_RECOVERY = "gpu_lease.memory_recovery"

# Ended leases whose memory may still come back, and requests that may come again under the same id.
_REMEMBERED = 1_000
# Events of one hold; a lease that is renewed for days has many.
_MOST_EVENTS = 64
_EVENTS = frozenset(
    {
        EventType.YIELD_REQUESTED,
        EventType.HOLD_EXCEEDED,
        EventType.MEMORY_OVERUSE,
        EventType.RESIZED,
        EventType.DETACHED,
        EventType.JOINED,
    }
)

_propagator = TraceContextTextMapPropagator()


@dataclass(slots=True)
class _Hold:
    """A live lease that is sampled."""

    own: SpanContext
    # Whose child it is.
    parent: SpanContext
    acquire: SpanContext
    events: list[Event] = field(default_factory=list)


class Traces:
    """An observer that makes spans.

    provider: one whose ids are `Ids`. uuids: of the GPUs, by key. wall: nanoseconds since 1970.
    """

    def __init__(self, provider: TracerProvider, uuids: Mapping[str, str], wall: Callable[[], int]) -> None:
        self._spans = SpanMaker(provider)
        self._uuids = uuids
        self._wall = wall
        # By the number of the request, where it stood, and the holds that were in its way.
        self._waiting: dict[int, tuple[Place, list[Link]]] = {}
        self._holds: dict[str, _Hold] = {}
        self._ended: OrderedDict[str, _Hold] = OrderedDict()
        self._attempts: OrderedDict[tuple[str, str], SpanContext] = OrderedDict()
        self._current: Exemplar | None = None

    @property
    def current(self) -> Exemplar | None:
        """The ids, in hex, of the trace and span that what was observed last belongs to; None: it is not sampled."""
        return self._current

    def observe(self, recorded: Recorded) -> None:
        """Makes the spans that end with it."""
        self._current = None
        match recorded.type:
            case EventType.QUEUED:
                self._queued(recorded)
            case EventType.GRANTED:
                self._granted(recorded)
            case EventType.DECLINED | EventType.FAILED:
                self._refused(recorded)
            case EventType.RECOVERED:
                self._recovered(recorded)
            case EventType.ENDED:
                self._lease_ended(recorded)
            case EventType.MEMORY_RECOVERED:
                self._memory_recovered(recorded)
            case kind if kind in _EVENTS:
                self._happened(recorded)

    # -- before the lease --

    def _queued(self, recorded: Recorded) -> None:
        assert recorded.place is not None
        holds = (self._holds.get(lease_id) for lease_id in recorded.place.blockers)
        links = [Link(hold.own, {"gpu_arbiter.link": "blocked_by"}) for hold in holds if hold]
        self._waiting[recorded.number] = recorded.place, links

    def _granted(self, recorded: Recorded) -> None:
        caller = _caller_of(recorded)
        acquire = self._acquired(recorded, caller)
        if acquire is not None:
            own = self._spans.reserve(acquire.trace_id)
            self._holds[recorded.lease_id] = _Hold(own, caller or acquire, acquire)

    def _refused(self, recorded: Recorded) -> None:
        self._acquired(recorded, _caller_of(recorded))

    def _acquired(self, recorded: Recorded, caller: SpanContext | None) -> SpanContext | None:
        """Makes the span of a request that is decided; None: it is not sampled."""
        place, links = self._waiting.pop(recorded.number, (None, []))
        trace_id = self._spans.sampled(caller, ACQUIRE)
        if trace_id is None:
            return None
        attempt = (recorded.holder.client_id if recorded.holder else "", recorded.request_id)
        before = self._attempts.pop(attempt, None)
        if before is not None:
            links = [*links, Link(before, {"gpu_arbiter.link": "retry_of"})]
        own = self._spans.reserve(trace_id)
        now = self._wall()
        self._spans.make(
            ACQUIRE,
            own,
            caller,
            start=now - _nanoseconds(recorded.waited),
            end=now,
            attributes=spans.of_acquire(recorded, place, self._uuids),
            links=links,
            error=spans.refusal(recorded),
        )
        self._show(own)
        _remember(self._attempts, attempt, own)
        return own

    # -- the lease --

    def _recovered(self, recorded: Recorded) -> None:
        """A lease of before a restart: its acquire is told already, its caller is known from the journal."""
        caller = _caller_of(recorded)
        if caller is not None and self._spans.sampled(caller, ACQUIRE) is not None:
            own = self._spans.reserve(caller.trace_id)
            self._holds[recorded.lease_id] = _Hold(own, caller, caller)

    def _happened(self, recorded: Recorded) -> None:
        hold = self._holds.get(recorded.lease_id)
        if hold is not None:
            self._show(hold.own)
            if len(hold.events) < _MOST_EVENTS:
                hold.events.append((recorded.type.name.lower(), self._wall(), spans.of_event(recorded)))

    def _lease_ended(self, recorded: Recorded) -> None:
        hold = self._holds.pop(recorded.lease_id, None)
        if hold is None:
            return
        now = self._wall()
        links = [] if hold.acquire is hold.parent else [Link(hold.acquire, {"gpu_arbiter.link": "acquired_by"})]
        self._spans.make(
            HOLD,
            hold.own,
            hold.parent,
            start=now - _nanoseconds(recorded.held),
            end=now,
            attributes=spans.of_hold(recorded, self._uuids),
            links=links,
            error=spans.bad_end(recorded),
            events=hold.events,
        )
        self._show(hold.own)
        _remember(self._ended, recorded.lease_id, hold)

    def _memory_recovered(self, recorded: Recorded) -> None:
        hold = self._ended.get(recorded.lease_id)
        if hold is not None:
            now = self._wall()
            own = self._spans.reserve(hold.own.trace_id)
            self._spans.make(
                MEMORY_RECOVERY,
                own,
                hold.parent,
                start=now - _nanoseconds(recorded.waited),
                end=now,
                attributes=spans.of_gpus(recorded, self._uuids),
                links=[Link(hold.own, {"gpu_arbiter.link": "recovers_from"})],
            )

    def _show(self, context: SpanContext) -> None:
        self._current = f"{context.trace_id:032x}", f"{context.span_id:016x}"


def _caller_of(recorded: Recorded) -> SpanContext | None:
    """The caller's span, where it told of one that is sound."""
    if not recorded.traceparent:
        return None
    carrier = {"traceparent": recorded.traceparent, "tracestate": recorded.tracestate}
    caller = trace.get_current_span(_propagator.extract(carrier)).get_span_context()
    return caller if caller.is_valid else None


def _nanoseconds(seconds: float | None) -> int:
    return round((seconds or 0.0) * 1e9)


def _remember(kept: OrderedDict[Any, Any], key: object, value: object) -> None:
    kept[key] = value
    if len(kept) > _REMEMBERED:
        kept.popitem(last=False)
