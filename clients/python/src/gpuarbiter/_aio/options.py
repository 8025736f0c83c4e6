"""Every keyword of `lease` and `acquire`."""

from collections.abc import Callable
from typing import Any

from gpuarbiter._aio.lease import AsyncLease
from gpuarbiter._options import RequestOptions
from gpuarbiter._values import Queued, YieldRequest


class AsyncLeaseOptions(RequestOptions, total=False):
    """Every keyword of `lease` and `acquire`. Callbacks may be coroutine functions in the asynchronous client."""

    on_queued: Callable[[Queued], Any] | None
    """Called while waiting, whenever the arbiter says where the request stands."""
    on_yield: Callable[[AsyncLease, YieldRequest], Any] | None
    """Called when the arbiter asks for the GPU."""
    on_lost: Callable[[AsyncLease], Any] | None
    """Called when the lease is lost."""
