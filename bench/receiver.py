"""An OTLP receiver that takes everything, and an address at which there is none."""

import contextlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


class Receiver:
    """What was received; read only when it is asked for, so that receiving costs next to nothing."""

    def __init__(self) -> None:
        self._bodies: list[bytes] = []
        self.endpoint = ""

    def take(self, body: bytes, _context: grpc.ServicerContext) -> bytes:
        """An Export; the answer is an empty message."""
        self._bodies.append(body)
        return b""

    def spans(self) -> int:
        """How many spans came."""
        messages = map(ExportTraceServiceRequest.FromString, self._bodies)
        return sum(len(scope.spans) for each in messages for kind in each.resource_spans for scope in kind.scope_spans)


@contextlib.contextmanager
def receiver() -> Iterator[Receiver]:
    """One in this process."""
    received = Receiver()
    server = grpc.server(ThreadPoolExecutor(1))
    handlers = {"Export": grpc.unary_unary_rpc_method_handler(received.take)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, handlers)])
    received.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield received
    finally:
        server.stop(None).wait()


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    """An endpoint that refuses connections: the port is taken, and nobody listens there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def sampled(endpoint: str, share: float) -> dict[str, str]:
    """The variables by which an arbiter sends this share of its traces there."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": str(share),
    }
