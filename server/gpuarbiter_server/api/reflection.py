"""Reflection: what grpcurl and its like ask the server about itself.

The library's own finds files by the messages and services in them, but not by methods, so that
`describe gpuarbiter.v1.GpuArbiter.Acquire` would be told that there is no such symbol.
"""

from collections.abc import Iterable
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection


class _Pool:
    """The default pool, which finds methods too."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        """Everything else is the pool's."""
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802 - the pool's name
        """The file that defines a message, enum, service or method; KeyError when there is none."""
        try:
            file: FileDescriptor = self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            file = self._pool.FindServiceByName(service).methods_by_name[method].containing_service.file
        return file


def servicer(services: Iterable[str]) -> Any:
    """Reflection of these services, and of itself."""
    pool: Any = _Pool()
    return reflection.aio.ReflectionServicer((*services, reflection.SERVICE_NAME), pool=pool)  # type: ignore[attr-defined]
