"""The lease that the code of now runs under.

Law: it is set for the length of a task, in the context of that task alone; what the task starts (threads by
`asyncio.to_thread`, asyncio tasks) inherits it, its neighbours never see it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar, overload

if TYPE_CHECKING:
    from gpuarbiter._aio.lease import AsyncLease
    from gpuarbiter._sync.lease import Lease

_held: "ContextVar[Lease | AsyncLease | None]" = ContextVar("gpuarbiter_lease", default=None)
_REQUIRED = object()

T = TypeVar("T")


@contextmanager
def running_under(lease: "Lease | AsyncLease | None") -> Iterator[None]:
    """Makes a lease the current one; None: there is none, as on the CPU."""
    token = _held.set(lease)
    try:
        yield
    finally:
        _held.reset(token)


@overload
def current_lease() -> "Lease | AsyncLease": ...
@overload
def current_lease(default: T) -> "Lease | AsyncLease | T": ...
def current_lease(default: object = _REQUIRED) -> object:
    """The lease that a `gpu_task`, the function of `run` or a request of GpuLeaseMiddleware runs under.

    Raises:
        LookupError: there is none (on the CPU, for instance), and no default was given.
    """
    lease = _held.get()
    if lease is not None:
        return lease
    if default is _REQUIRED:
        raise LookupError("no lease here: this is not called by a gpu_task, or runs on the CPU")
    return default
