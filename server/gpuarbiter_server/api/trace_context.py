"""The caller's trace: the W3C headers `traceparent` and `tracestate` in the metadata of a call.

A request's own fields come before them. What is no sound traceparent is as good as none: it says something of the
caller's tracing, and nothing of its request. Format: w3.org/TR/trace-context.
"""

import re
from typing import NamedTuple

from gpuarbiter_server.api.status import Context

# Trace, span, flags; no id is all zeros. Only versions after 00 may have more, and ff is none.
_IDS = r"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_TRACEPARENT = re.compile(rf"00{_IDS}|(?!00|ff)[0-9a-f]{{2}}{_IDS}(-.{{0,64}})?")
_LONGEST_STATE = 512


class TraceContext(NamedTuple):
    """Both headers as they came; empty where there are none."""

    traceparent: str = ""
    tracestate: str = ""


NOTHING = TraceContext()


def trace_context_of(context: Context) -> TraceContext:
    """What the metadata of a call says."""
    metadata = context.invocation_metadata()
    if not metadata:
        return NOTHING
    said = {key: value for key, value in metadata if key in TraceContext._fields and isinstance(value, str)}
    return trace_context(said.get("traceparent", ""), said.get("tracestate", ""))


def trace_context(traceparent: str, tracestate: str) -> TraceContext:
    """Both headers, as far as they are sound."""
    if not _TRACEPARENT.fullmatch(traceparent):
        return NOTHING
    return TraceContext(traceparent, tracestate if len(tracestate) <= _LONGEST_STATE else "")
