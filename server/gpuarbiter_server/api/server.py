"""The gRPC server: which handlers it has, where it listens, and what it expects of connections.

TCP ports are not shared (so_reuseport off), and a Unix socket belongs to whoever holds the lock beside
it: gRPC itself would let a second server bind either without a word.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from gpuarbiter.v1 import admin_pb2, gpu_arbiter_pb2
from gpuarbiter_server.api import lent, reflection
from gpuarbiter_server.api.admin import GpuArbiterAdminService
from gpuarbiter_server.api.service import GpuArbiterService
from gpuarbiter_server.api.sockets import claim
from gpuarbiter_server.api.wire import Counting, decoder, encoder

_ARBITER: ServiceDescriptor = gpu_arbiter_pb2.DESCRIPTOR.services_by_name["GpuArbiter"]
_ADMIN: ServiceDescriptor = admin_pb2.DESCRIPTOR.services_by_name["GpuArbiterAdmin"]
_HEALTH: ServiceDescriptor = health_pb2.DESCRIPTOR.services_by_name["Health"]
_REFLECTION: ServiceDescriptor = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]

# A stopped client is noticed within two seconds; without ping_timeout_ms it takes a minute.
_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 1000),
    ("grpc.http2.ping_timeout_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 500),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    # A crowd that comes at once (after a restart) waits for its turn; by default gRPC cancels calls at random
    # beyond about a thousand that it has not handed on yet.
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 200_000),
)


class ListenError(Exception):
    """An address cannot be listened on; the message says which, and why or what to look for."""


class GrpcServer:
    """Serves both services, health and reflection."""

    def __init__(self, arbiter: GpuArbiterService, admin: GpuArbiterAdminService, counting: Counting) -> None:
        self._server = grpc.aio.server(options=_OPTIONS)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._locks: list[int] = []
        self._sockets: list[Path] = []
        reflected = reflection.servicer(service.full_name for service in (_ARBITER, _ADMIN, _HEALTH))
        self._server.add_generic_rpc_handlers(
            (
                _handlers(_ARBITER, lambda name: getattr(arbiter, _snake(name)), counting),
                _handlers(_ADMIN, lambda name: getattr(admin, _snake(name)), counting),
                _handlers(_HEALTH, lambda name: lent.one(getattr(self._health, name)), counting),
                _handlers(_REFLECTION, lambda name: lent.many(getattr(reflected, name)), counting),
            )
        )

    def listen_tcp(self, address: str) -> int:
        """Listens on host:port; returns the port. ListenError when someone does already."""
        try:
            return self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise ListenError(
                f"{address} is in use or cannot be bound: does another gpu-arbiterd run there?"
            ) from error

    def listen_unix(self, path: Path) -> None:
        """Listens on a Unix socket that only this user can reach. ListenError when someone does already."""
        try:
            self._locks.append(claim(path))
        except OSError as error:
            raise ListenError(f"cannot listen on unix:{path}: {error}") from error
        before = os.umask(0o177)
        try:
            # What follows "unix:" is part of a URI.
            self._server.add_insecure_port(f"unix:{quote(str(path))}")
        except RuntimeError as error:
            raise ListenError(f"cannot listen on unix:{path}: gRPC does not take the path") from error
        finally:
            os.umask(before)
        self._sockets.append(path)

    async def start(self) -> None:
        """Answers calls from now on."""
        await self._server.start()
        await self.announce(serving=True)

    async def announce(self, serving: bool) -> None:
        """Says whether new work is taken; calls are answered in any case."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", _ARBITER.full_name, _ADMIN.full_name):
            await self._health.set(name, status)

    async def stop(self, grace: float) -> None:
        """Ends what still runs after a grace period in seconds, and gives the addresses back."""
        await self._server.stop(grace)
        for path in self._sockets:
            path.unlink(missing_ok=True)
        for lock in self._locks:
            os.close(lock)
        self._sockets.clear()
        self._locks.clear()


def _handlers(service: ServiceDescriptor, find: Callable[[str], Callable[..., Any]], counting: Counting) -> Any:
    """Handlers for every method of a service, by its descriptor; decoding cannot raise."""
    methods = {}
    for method in service.methods:
        handler = find(method.name)
        asked, answered = (message_factory.GetMessageClass(each) for each in (method.input_type, method.output_type))
        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[method.client_streaming, method.server_streaming]
        methods[method.name] = make(
            handler, request_deserializer=decoder(asked, counting), response_serializer=encoder(answered, counting)
        )
    return grpc.method_handlers_generic_handler(service.full_name, methods)


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
