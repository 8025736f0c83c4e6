"""The caller's trace: the W3C headers `traceparent` and `tracestate` in the metadata of a call.

A request's own fields come before them. What is no sound traceparent is as good as none: it says something of the
caller's tracing, and nothing of its request. Format: w3.org/TR/trace-context.
"""

import re
from typing import NamedTuple

from gpuarbiter_server.api.status import Context

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.{0,64})?")
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
    if not _TRACEPARENT.fullmatch(said.get("traceparent", "")):
        return NOTHING
    state = said.get("tracestate", "")
    return TraceContext(said["traceparent"], state if len(state) <= _LONGEST_STATE else "")
