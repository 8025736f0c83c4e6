"""Spans on their way to an OTLP receiver, over gRPC, by the standard OTEL_* variables of the environment.

Law: what cannot be exported is dropped and counted; nobody waits for it.
"""

import os
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from gpuarbiter_server.telemetry.span_maker import Ids

_QUEUE = "OTEL_BSP_MAX_QUEUE_SIZE"
_DEFAULT_QUEUE = 2048
_BATCH = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
_DEFAULT_BATCH = 512


class Export:
    """A provider of spans that exports them, and counts those that were lost.

    exporter: None: the OTLP one that the environment describes. Raises whatever OpenTelemetry does not like there.
    """

    def __init__(self, version: str, instance_id: str, exporter: SpanExporter | None = None) -> None:
        own = {"service.name": "gpu-arbiter", "service.version": version, "service.instance.id": instance_id}
        self.provider = TracerProvider(resource=_resource(own), id_generator=Ids(), shutdown_on_exit=False)
        self._processor = _HandingOver(exporter or OTLPSpanExporter())
        self.provider.add_span_processor(self._processor)

    def dropped(self) -> int:
        """Spans that were lost so far."""
        return self._processor.dropped

    def close(self) -> None:
        """Exports what is left; may take as long as the receiver takes."""
        self.provider.shutdown()


def _resource(own: dict[str, str]) -> Resource:
    """What the spans are of; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES come before what we say."""
    said = OTELResourceDetector().detect().attributes
    return Resource.create({**own, **said})


class _Counted(SpanExporter):
    """An exporter that counts; in the thread of the export only."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.taken = 0
        self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Exports a batch."""
        self.taken += len(spans)
        try:
            result = self._exporter.export(spans)
        except BaseException:
            self.failed += len(spans)
            raise
        if result is not SpanExportResult.SUCCESS:
            self.failed += len(spans)
        return result

    def shutdown(self) -> None:
        """Ends the exporter, and what it waits for."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Has the exporter send what it keeps."""
        return self._exporter.force_flush(timeout_millis)


class _HandingOver(BatchSpanProcessor):
    """Batches spans for an exporter. What does not fit into the queue is dropped before it gets there: the newest."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._counted = _Counted(exporter)
        self._most = _size(_QUEUE, _DEFAULT_QUEUE)
        self._handed_over = 0
        self._refused = 0
        # OpenTelemetry takes no queue that is shorter than a batch.
        batch = min(self._most, _size(_BATCH, _DEFAULT_BATCH))
        super().__init__(self._counted, max_queue_size=self._most, max_export_batch_size=batch)

    @property
    def dropped(self) -> int:
        """Spans that found the queue full, and those whose export failed."""
        return self._refused + self._counted.failed

    def on_end(self, span: ReadableSpan) -> None:
        """Takes a span over, from the event loop."""
        if self._handed_over - self._counted.taken >= self._most:
            self._refused += 1
        else:
            self._handed_over += 1
            super().on_end(span)


def _size(variable: str, default: int) -> int:
    try:
        return max(1, int(os.environ.get(variable, default)))
    except ValueError:
        return default
