"""The loop that all clients of the bench run on.

One for all rounds: gRPC has one completion queue in a process, and delivers what is late to the loop of the round
before. It is the servers' kind of loop, so that less of the clients is measured.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

_T = TypeVar("_T")
_RUNNER = asyncio.Runner(loop_factory=uvloop.new_event_loop)


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """As asyncio.run."""
    return _RUNNER.run(work)
