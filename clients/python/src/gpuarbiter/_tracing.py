"""The caller's trace, where the program uses OpenTelemetry: its span becomes the parent of the lease's.

Law: never imports OpenTelemetry; who has not imported it has no span to tell of.
"""

import sys
from typing import Any, NamedTuple

# What the contract allows.
_LONGEST_STATE = 512


class TraceContext(NamedTuple):
    """The W3C headers of a span; empty where there is none."""

    traceparent: str = ""
    tracestate: str = ""


def current() -> TraceContext:
    """Of the span that is current here."""
    # While another thread imports it, it is there already, and has not all of its names yet.
    current_span: Any = getattr(sys.modules.get("opentelemetry.trace"), "get_current_span", None)
    if current_span is None:
        return TraceContext()
    span = current_span().get_span_context()
    if not span.is_valid:
        return TraceContext()
    header = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
    state = span.trace_state.to_header()
    # A longer one would have the request refused; without it the trace is the same.
    return TraceContext(header, state if len(state) <= _LONGEST_STATE else "")
