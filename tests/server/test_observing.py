"""What observes is no reason not to serve."""

import contextlib

import pytest

from gpuarbiter_server.app.observing import observe
from gpuarbiter_server.runtime.about import About
from gpuarbiter_server.telemetry.log_writer import LogWriter
from support.server import configured, gpu_specs


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "many"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[::1"),
    ],
)
async def test_what_opentelemetry_does_not_take_costs_the_traces_alone(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(variable, value)
    async with contextlib.AsyncExitStack() as stack:
        writer = stack.enter_context(contextlib.closing(LogWriter()))
        observing = observe(configured(), gpu_specs(), About("i", "1", 0.0), None, writer, stack)
        assert [type(each).__name__ for each in observing.observers] == ["History", "Metrics", "EventLog"]
        assert observing.spans_dropped() == 0
    (said,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert said.startswith("no traces: ")
