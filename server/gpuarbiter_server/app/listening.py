"""Where the arbiter listens: every address that is configured, or none."""

import contextlib
import socket
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette

from gpuarbiter_server.api.server import GrpcServer, ListenError
from gpuarbiter_server.app.problems import StartError
from gpuarbiter_server.config import Address, Config
from gpuarbiter_server.web import serving


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where it serves; None where it does not."""

    grpc: str | None
    socket: Path | None
    http: str | None

    def __str__(self) -> str:
        served = (
            f"grpc {self.grpc}" if self.grpc else "",
            f"unix:{self.socket}" if self.socket else "",
            f"http {self.http}" if self.http else "",
        )
        return ", ".join(text for text in served if text)


@dataclass(frozen=True, slots=True)
class Taken:
    """The addresses are ours; nobody is answered there yet."""

    addresses: Addresses
    http: socket.socket | None

    async def serve(self, server: GrpcServer, application: Starlette, stack: contextlib.AsyncExitStack) -> None:
        """Answers from now on."""
        await server.start()
        if self.http is not None:
            stack.push_async_callback(serving.serve(self.http, application))


def take(config: Config, server: GrpcServer, stack: contextlib.AsyncExitStack) -> Taken:
    """Takes every address that is configured, or none: StartError says which is taken."""
    path, grpc_at, http_at = config.listen.socket_path(), config.listen.grpc_address(), config.listen.http_address()
    stack.push_async_callback(server.stop, 0.5)
    http = _bind(http_at, stack) if http_at is not None else None
    try:
        port = server.listen_tcp(str(grpc_at)) if grpc_at is not None else None
        if path is not None:
            server.listen_unix(path)
    except ListenError as error:
        raise StartError(str(error)) from error
    addresses = Addresses(
        grpc=str(Address(grpc_at.host, port)) if grpc_at is not None and port else None,
        socket=path,
        http=_name(http) if http is not None else None,
    )
    return Taken(addresses, http)


def _bind(address: Address, stack: contextlib.AsyncExitStack) -> socket.socket:
    try:
        listener = serving.bind(address.host, address.port)
    except OSError as error:
        raise StartError(
            f"{address} is in use or cannot be bound: does another gpu-arbiterd run there? ({error.strerror})"
        ) from error
    stack.callback(listener.close)
    return listener


def _name(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return str(Address(host, port))
