"""The web console: from what it is fed."""

import asyncio
import contextlib

from starlette.routing import BaseRoute

from gpuarbiter_server.analysis.service import Analysis
from gpuarbiter_server.config import Config
from gpuarbiter_server.runtime.about import About
from gpuarbiter_server.runtime.clock import monotonic, wall
from gpuarbiter_server.runtime.runtime import Runtime
from gpuarbiter_server.store.history import History
from gpuarbiter_server.web.console import site
from gpuarbiter_server.web.console.actions import Actions
from gpuarbiter_server.web.console.feed import Feed
from gpuarbiter_server.web.console.state import State, WallTime
from gpuarbiter_server.web.guard import Guard


class Console:
    """The console where it is on, and its stand-in where it is off."""

    def __init__(
        self, config: Config, runtime: Runtime, history: History, about: About, analysis: Analysis | None
    ) -> None:
        self._feed: Feed | None = None
        self._actions = Actions(runtime)
        if not config.console.enabled or config.listen.http_address() is None:
            return
        moment = WallTime(monotonic, wall)
        self._feed = Feed(
            State(runtime.census, about, config.node_name(), moment, analysis),
            history,
            runtime.census,
            revision=lambda: runtime.revision,
            changed=runtime.changed_since,
            wall=wall,
            moment=moment,
        )

    def routes(self, guard: Guard) -> list[BaseRoute]:
        """What it answers."""
        return [] if self._feed is None else site.routes(self._feed, self._actions, guard)

    def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Runs from now on; ends, with all who watch, before what serves it."""
        if self._feed is not None:
            stack.callback(self._feed.close)
            stack.callback(asyncio.ensure_future(self._feed.take_readings()).cancel)
