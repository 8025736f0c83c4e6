"""Snapshots as they go over the wire, made once for all who ask for the same at the same time.

A hundred watchers of one arbiter would otherwise have each state rendered a hundred times.
"""

import asyncio
from typing import NamedTuple

from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter_server.api.convert_out import Converter
from gpuarbiter_server.api.convert_snapshot import arbiter_snapshot
from gpuarbiter_server.core.events import Caller
from gpuarbiter_server.runtime.about import About
from gpuarbiter_server.runtime.clock import monotonic
from gpuarbiter_server.runtime.runtime import Runtime

# What a snapshot says of remaining times may be this old, in seconds; what a watcher is told of anything, too.
_FRESH = 0.05
_KEPT = 32
_DEFAULT_TICKETS = 100


class Wanted(NamedTuple):
    """What a snapshot is to show, and to whom."""

    gpus: tuple[str, ...]
    max_tickets: int
    processes: bool
    caller: Caller


class Rendered(NamedTuple):
    """An encoded SnapshotResponse, and the revision that it shows."""

    revision: int
    at: float
    message: bytes


class Snapshots:
    """Renders, and keeps what it rendered for a moment."""

    def __init__(self, runtime: Runtime, convert: Converter, about: About) -> None:
        self._runtime = runtime
        self._convert = convert
        self._about = about
        self._rendered: dict[Wanted, Rendered] = {}
        self._turns = asyncio.Lock()

    async def turn(self) -> None:
        """Returns when this watcher may go on: all wake at once, and who waits for a grant is not behind them all."""
        async with self._turns:
            await asyncio.sleep(0)

    def wanted(self, request: pb.SnapshotRequest, caller: Caller) -> Wanted:
        """What a request asks for."""
        return Wanted(tuple(request.gpus), request.max_tickets or _DEFAULT_TICKETS, request.processes, caller)

    def render(self, wanted: Wanted, *, after: int | None = None) -> Rendered:
        """The state now, or as it was a moment ago if it has not changed; ArbiterError for a GPU that is none.

        after: a revision; then any that is newer will do, if it was the newest a moment ago.
        """
        found = self._rendered.get(wanted)
        now = monotonic()
        if found is not None and now - found.at < _FRESH:
            newest = found.revision == self._runtime.revision
            if newest or (after is not None and found.revision > after):
                return found
        view = self._runtime.snapshot(gpus=wanted.gpus, max_tickets=wanted.max_tickets)
        snapshot = arbiter_snapshot(view, self._convert, self._about, wanted.caller, processes=wanted.processes)
        rendered = Rendered(view.revision, now, pb.SnapshotResponse(snapshot=snapshot).SerializeToString())
        if len(self._rendered) >= _KEPT:
            self._rendered.clear()
        self._rendered[wanted] = rendered
        return rendered
