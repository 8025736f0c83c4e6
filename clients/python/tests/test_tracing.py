"""The caller's span in a request: only where the program uses OpenTelemetry."""

import subprocess
import sys
from types import ModuleType

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanContext, TraceFlags, TraceState

from gpuarbiter import _convert, _tracing


def test_the_current_span_is_handed_on():
    with TracerProvider(shutdown_on_exit=False).get_tracer("t").start_as_current_span("x") as span:
        request = _convert.acquire_request("ASR", {})
    context = span.get_span_context()
    assert request.traceparent == f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    assert request.tracestate == ""


def test_what_is_not_sampled_says_so_and_the_state_goes_along():
    state = TraceState([("vendor", "42"), ("other", "7")])
    context = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(0), trace_state=state)
    with trace.use_span(trace.NonRecordingSpan(context)):
        assert _tracing.current() == (f"00-{1:032x}-{2:016x}-00", "vendor=42,other=7")


def test_a_state_that_is_too_long_for_a_request_is_left_out():
    for length, told in ((512, True), (513, False)):
        state = TraceState([("v", "x" * 250), ("long", "y" * (length - 258))])
        context = SpanContext(1, 2, is_remote=True, trace_state=state)
        with trace.use_span(trace.NonRecordingSpan(context)):
            said = _tracing.current()
        assert said.traceparent.startswith("00-")
        assert bool(said.tracestate) is told


def test_a_module_that_is_still_being_imported_has_no_span(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", ModuleType("opentelemetry.trace"))
    assert _tracing.current() == ("", "")


def test_without_a_span_there_is_nothing_to_tell():
    assert _tracing.current() == ("", "")


def test_opentelemetry_is_never_imported_for_it():
    code = (
        "import sys; from gpuarbiter import _convert; request = _convert.acquire_request('ASR', {});"
        "print(repr(request.traceparent), 'opentelemetry' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "'' False\n"
