"""Makes spans that are over already, with ids that were reserved for them.

OpenTelemetry's own way to a span begins it, and draws its ids then. Here the ids of a hold are known from its grant on,
and the span is made when it ends.
"""

from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

# A name, nanoseconds since 1970, and attributes.
Event = tuple[str, int, dict[str, AttributeValue]]

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_NOWHERE = Context()


class Ids(RandomIdGenerator):
    """Random ids, but for those that were reserved."""

    def __init__(self) -> None:
        self._reserved: SpanContext | None = None

    def reserve(self, context: SpanContext | None) -> None:
        """The next span gets the ids of this context, as far as it is free to choose."""
        self._reserved = context

    def generate_span_id(self) -> int:
        """A reserved one, or a random one."""
        return self._reserved.span_id if self._reserved else super().generate_span_id()

    def generate_trace_id(self) -> int:
        """A reserved one, or a random one."""
        return self._reserved.trace_id if self._reserved else super().generate_trace_id()


class SpanMaker:
    """Spans of a provider whose ids are `Ids`."""

    def __init__(self, provider: TracerProvider) -> None:
        assert isinstance(provider.id_generator, Ids)
        self._ids = provider.id_generator
        self._sampler = provider.sampler
        self._tracer = provider.get_tracer("gpu-arbiter")

    def sampled(self, caller: SpanContext | None, name: str) -> int | None:
        """The trace that a new span of this name belongs to; None: it is not sampled."""
        trace_id = caller.trace_id if caller else self._ids.generate_trace_id()
        result = self._sampler.should_sample(_under(caller), trace_id, name, SpanKind.INTERNAL)
        return trace_id if result.decision is Decision.RECORD_AND_SAMPLE else None

    def reserve(self, trace_id: int) -> SpanContext:
        """The ids of a span that is yet to be made."""
        return SpanContext(trace_id, self._ids.generate_span_id(), is_remote=False, trace_flags=_SAMPLED)

    def make(
        self,
        name: str,
        own: SpanContext,
        parent: SpanContext | None,
        *,
        start: int,
        end: int,
        attributes: dict[str, AttributeValue],
        links: list[Link],
        error: tuple[str, str] | None = None,
        events: list[Event] | None = None,
    ) -> None:
        """Makes a span that began and ended then (nanoseconds since 1970); error: its kind and message."""
        if error is not None:
            attributes["error.type"] = error[0]
        self._ids.reserve(own)
        try:
            span = self._tracer.start_span(
                name, context=_under(parent), attributes=attributes, links=links, start_time=start
            )
        finally:
            self._ids.reserve(None)
        for happened, at, facts in events or ():
            span.add_event(happened, facts, at)
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, error[1]))
        span.end(end)


def _under(parent: SpanContext | None) -> Any:
    """The context in which a span has this parent, or none."""
    return trace.set_span_in_context(trace.NonRecordingSpan(parent or trace.INVALID_SPAN_CONTEXT), _NOWHERE)
