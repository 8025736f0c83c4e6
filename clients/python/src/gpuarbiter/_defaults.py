"""The Arbiter of this process, for those who make none of their own.

Law: made at its first use, from the environment; one for all threads, and for asyncio one for each event loop,
because an AsyncArbiter belongs to its loop. One that was closed is replaced.
"""

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from gpuarbiter._aio.arbiter import AsyncArbiter
    from gpuarbiter._sync.arbiter import Arbiter

_lock = threading.Lock()


def _in_child() -> None:
    global _lock  # noqa: PLW0603 -- a thread of the parent's may hold the one that there is
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)

_for_threads: "list[Arbiter]" = []
_for_loops: "dict[asyncio.AbstractEventLoop, AsyncArbiter]" = {}


def default_arbiter() -> "Arbiter":
    """The one that `gpu_task` uses for functions, unless it is given one.

    Raises:
        ValueError: the environment names no address.
    """
    from gpuarbiter._sync.arbiter import Arbiter

    with _lock:
        if not _for_threads or _for_threads[0].closed:
            _for_threads[:] = [Arbiter()]
        return _for_threads[0]


def default_async_arbiter() -> "AsyncArbiter":
    """The one that `gpu_task` uses for coroutine functions, and GpuLeaseMiddleware, unless they are given one.

    Raises:
        RuntimeError: no event loop is running.
        ValueError: the environment names no address.
    """
    import asyncio

    from gpuarbiter._aio.arbiter import AsyncArbiter

    loop = asyncio.get_running_loop()
    with _lock:
        for each in [each for each in _for_loops if each.is_closed()]:
            del _for_loops[each]
        arbiter = _for_loops.get(loop)
        if arbiter is None or arbiter.closed:
            arbiter = _for_loops[loop] = AsyncArbiter()
        return arbiter
