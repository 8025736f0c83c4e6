"""Whether spans are exported, and what becomes of those that cannot be."""

import logging
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from fakes.polling import until
from gpuarbiter_server.telemetry import otlp
from gpuarbiter_server.telemetry.export import Export

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"}


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "true"}, False),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "false"}, True),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, False),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "otlp"}, True),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, False),
    ],
)
def test_spans_are_exported_where_an_endpoint_is_set(
    environment: dict[str, str], wanted: bool, caplog: pytest.LogCaptureFixture
):
    assert otlp.wanted(environment) is wanted
    assert not caplog.records


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "'zipkin'"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "'http/protobuf'"),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "'http/json'"),
    ],
)
def test_what_is_not_known_here_is_said(more: dict[str, str], said: str, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        assert otlp.wanted(ENDPOINT | more) is False
    assert said in caplog.text


def test_opentelemetry_is_not_imported_to_find_that_out():
    code = "import sys; from gpuarbiter_server import app; print('opentelemetry.sdk' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"


class Stuck(SpanExporter):
    """Takes nothing until it is let go; then says how it went."""

    def __init__(self, result: SpanExportResult = SpanExportResult.SUCCESS) -> None:
        self.go = threading.Event()
        self.took: list[int] = []
        self._result = result

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.go.wait(30)
        self.took.append(len(spans))
        return self._result


class Broken(SpanExporter):
    """Raises."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        raise RuntimeError(f"cannot take {len(spans)} spans")


@pytest.fixture
def small_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "5")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")


def make(export: Export, count: int) -> None:
    tracer = export.provider.get_tracer("test")
    for _ in range(count):
        tracer.start_span("x").end()


@pytest.mark.usefixtures("small_queue")
def test_what_finds_the_queue_full_is_dropped_and_counted():
    exporter = Stuck()
    export = Export("1", "i", exporter)
    try:
        make(export, 5)
        until(lambda: export._processor._counted.taken == 5, "for the first batch to be under way")
        make(export, 25)
        assert export.dropped() == 15
    finally:
        exporter.go.set()
        export.close()
    assert sum(exporter.took) == 15
    assert export.dropped() == 15


@pytest.mark.usefixtures("small_queue")
@pytest.mark.parametrize("exporter", [Stuck(SpanExportResult.FAILURE), Broken()], ids=["refuses", "raises"])
def test_what_cannot_be_exported_is_counted(exporter: Any):
    if isinstance(exporter, Stuck):
        exporter.go.set()
    export = Export("1", "i", exporter)
    make(export, 7)
    export.close()
    assert export.dropped() == 7


@pytest.mark.parametrize("size", ["0", "many", "", "100"])
@pytest.mark.parametrize("variable", ["OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"])
def test_a_size_that_makes_no_sense_is_no_reason_not_to_start(
    variable: str, size: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(variable, size)
    exporter = Stuck()
    exporter.go.set()
    export = Export("1", "i", exporter)
    make(export, 1)
    export.close()
    assert exporter.took == [1]


def test_the_environment_names_the_service(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test,service.version=theirs")
    for name, expected in (("", "gpu-arbiter"), ("ours", "ours")):
        monkeypatch.setenv("OTEL_SERVICE_NAME", name)
        export = Export("1.2", "i-1", Stuck())
        said = export.provider.resource.attributes
        export.provider.shutdown()
        assert said["service.name"] == expected
        assert said["service.version"] == "theirs"
        assert said["service.instance.id"] == "i-1"
        assert said["deployment.environment"] == "test"
