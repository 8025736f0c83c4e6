"""A receiver of OTLP traces, on a port of its own: a gRPC server on opentelemetry-proto, which keeps what it gets."""

from collections import defaultdict
from collections.abc import Iterable
from concurrent import futures
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from fakes.polling import until


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes what is exported to it."""

    def __init__(self) -> None:
        self.spans: list[trace_pb2.Span] = []
        self.resources: list[dict[str, Any]] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(2), options=(("grpc.so_reuseport", 0),))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def Export(  # noqa: N802 -- the contract's name
        self, request: trace_service_pb2.ExportTraceServiceRequest, _context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        for resource in request.resource_spans:
            self.resources.append(values(resource.resource.attributes))
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()

    @property
    def env(self) -> dict[str, str]:
        """What an arbiter needs in its environment; it exports ten times a second."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}", "OTEL_BSP_SCHEDULE_DELAY": "100"}

    def wait_for(self, name: str, count: int = 1) -> list[trace_pb2.Span]:
        """So many spans of a name, once they are there."""
        until(lambda: len(self.named(name)) >= count, f"for {count} spans {name}")
        return self.named(name)

    def named(self, name: str) -> list[trace_pb2.Span]:
        """Those of a name."""
        return [span for span in list(self.spans) if span.name == name]

    def by_trace(self) -> dict[bytes, list[trace_pb2.Span]]:
        """All spans, by their traces."""
        traces: dict[bytes, list[trace_pb2.Span]] = defaultdict(list)
        for span in list(self.spans):
            traces[span.trace_id].append(span)
        return traces

    def close(self) -> None:
        self._server.stop(0).wait()


def values(attributes: Iterable[common_pb2.KeyValue]) -> dict[str, Any]:
    """Attributes as Python has them."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
