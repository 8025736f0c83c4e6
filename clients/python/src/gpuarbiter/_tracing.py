"""The caller's trace, where the program uses OpenTelemetry: its span becomes the parent of the lease's.

Law: never imports OpenTelemetry; who has not imported it has no span to tell of.
"""

import sys
from typing import Any, NamedTuple


class TraceContext(NamedTuple):
    """The W3C headers of a span; empty where there is none."""

    traceparent: str = ""
    tracestate: str = ""


def current() -> TraceContext:
    """Of the span that is current here."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return TraceContext()
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return TraceContext()
    header = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
    return TraceContext(header, span.trace_state.to_header())
