"""Client of GpuArbiter: leases on the GPUs of one node.

    from gpuarbiter import Arbiter

    with Arbiter() as arbiter, arbiter.lease("ASR", memory="6GiB") as lease:
        run_on(lease.visible_devices)

Law: importing this package loads nothing but this file; each name loads what it needs when it is asked
for, so that `gpuarbiter.v1` (the generated stubs) stays cheap for those who want only that.
"""

import importlib
from typing import TYPE_CHECKING, Any

from gpuarbiter._version import __version__

if TYPE_CHECKING:
    from gpuarbiter._aio.admin import AsyncAdmin as AsyncAdmin
    from gpuarbiter._aio.arbiter import AsyncArbiter as AsyncArbiter
    from gpuarbiter._aio.arbiter import AsyncLeaseManager as AsyncLeaseManager
    from gpuarbiter._aio.lease import AsyncLease as AsyncLease
    from gpuarbiter._aio.options import AsyncLeaseOptions as AsyncLeaseOptions
    from gpuarbiter._clock import now as now
    from gpuarbiter._consistency import ConsistencyCheck as ConsistencyCheck
    from gpuarbiter._consistency import ConsistencyCounts as ConsistencyCounts
    from gpuarbiter._consistency import Mismatch as Mismatch
    from gpuarbiter._current import current_lease as current_lease
    from gpuarbiter._defaults import default_arbiter as default_arbiter
    from gpuarbiter._defaults import default_async_arbiter as default_async_arbiter
    from gpuarbiter._errors import ArbiterError as ArbiterError
    from gpuarbiter._errors import ArbiterUnavailable as ArbiterUnavailable
    from gpuarbiter._errors import Cancelled as Cancelled
    from gpuarbiter._errors import ClientLimit as ClientLimit
    from gpuarbiter._errors import GpuUnavailable as GpuUnavailable
    from gpuarbiter._errors import Infeasible as Infeasible
    from gpuarbiter._errors import InvalidRequest as InvalidRequest
    from gpuarbiter._errors import JournalUnavailable as JournalUnavailable
    from gpuarbiter._errors import LeaseEnded as LeaseEnded
    from gpuarbiter._errors import LeaseLost as LeaseLost
    from gpuarbiter._errors import NotPermitted as NotPermitted
    from gpuarbiter._errors import QueueFull as QueueFull
    from gpuarbiter._errors import RequestIdConflict as RequestIdConflict
    from gpuarbiter._errors import ResizeRefused as ResizeRefused
    from gpuarbiter._errors import ShuttingDown as ShuttingDown
    from gpuarbiter._errors import StaleToken as StaleToken
    from gpuarbiter._errors import Superseded as Superseded
    from gpuarbiter._errors import Unauthenticated as Unauthenticated
    from gpuarbiter._errors import UnknownGpu as UnknownGpu
    from gpuarbiter._errors import UnknownLease as UnknownLease
    from gpuarbiter._errors import Violation as Violation
    from gpuarbiter._errors import WaitTimeout as WaitTimeout
    from gpuarbiter._outcomes import Declined as Declined
    from gpuarbiter._outcomes import FallbackToCpu as FallbackToCpu
    from gpuarbiter._outcomes import Skipped as Skipped
    from gpuarbiter._sync.admin import Admin as Admin
    from gpuarbiter._sync.arbiter import Arbiter as Arbiter
    from gpuarbiter._sync.arbiter import LeaseManager as LeaseManager
    from gpuarbiter._sync.lease import Lease as Lease
    from gpuarbiter._sync.options import LeaseOptions as LeaseOptions
    from gpuarbiter._tasks import gpu_task as gpu_task
    from gpuarbiter._torch import torch_memory as torch_memory
    from gpuarbiter._values import Blocker as Blocker
    from gpuarbiter._values import Fence as Fence
    from gpuarbiter._values import GrantedGpu as GrantedGpu
    from gpuarbiter._values import Queued as Queued
    from gpuarbiter._values import Released as Released
    from gpuarbiter._values import WorkContext as WorkContext
    from gpuarbiter._values import WorkReport as WorkReport
    from gpuarbiter._values import YieldRequest as YieldRequest

_MODULES = {
    "_aio.admin": ("AsyncAdmin",),
    "_aio.arbiter": ("AsyncArbiter", "AsyncLeaseManager"),
    "_aio.lease": ("AsyncLease",),
    "_aio.options": ("AsyncLeaseOptions",),
    "_clock": ("now",),
    "_consistency": ("ConsistencyCheck", "ConsistencyCounts", "Mismatch"),
    "_current": ("current_lease",),
    "_defaults": ("default_arbiter", "default_async_arbiter"),
    "_errors": (
        "ArbiterError",
        "ArbiterUnavailable",
        "Cancelled",
        "ClientLimit",
        "GpuUnavailable",
        "Infeasible",
        "InvalidRequest",
        "JournalUnavailable",
        "LeaseEnded",
        "LeaseLost",
        "NotPermitted",
        "QueueFull",
        "RequestIdConflict",
        "ResizeRefused",
        "ShuttingDown",
        "StaleToken",
        "Superseded",
        "Unauthenticated",
        "UnknownGpu",
        "UnknownLease",
        "Violation",
        "WaitTimeout",
    ),
    "_outcomes": ("Declined", "FallbackToCpu", "Skipped"),
    "_sync.admin": ("Admin",),
    "_sync.arbiter": ("Arbiter", "LeaseManager"),
    "_sync.lease": ("Lease",),
    "_sync.options": ("LeaseOptions",),
    "_tasks": ("gpu_task",),
    "_torch": ("torch_memory",),
    "_values": ("Blocker", "Fence", "GrantedGpu", "Queued", "Released", "WorkContext", "WorkReport", "YieldRequest"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604 -- the keys are strings


def __getattr__(name: str) -> Any:
    module = _HOMES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
