"""A console of an arbiter that runs in the test's loop, and somebody who watches it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from gpuarbiter_server.analysis.service import Analysis
from gpuarbiter_server.runtime.about import About
from gpuarbiter_server.runtime.clock import wall
from gpuarbiter_server.web import app
from gpuarbiter_server.web import serving as http
from gpuarbiter_server.web.console import site
from gpuarbiter_server.web.console.actions import Actions
from gpuarbiter_server.web.console.feed import Feed
from gpuarbiter_server.web.console.state import State, WallTime
from gpuarbiter_server.web.guard import Guard
from support.logs import no_errors_logged
from support.server import InProcess

PATIENCE_SECONDS = 10.0
TOKEN = "a token of the test"


def feed_of(arbiter: InProcess, analysis: Analysis | None = None) -> Feed:
    """What feeds the console of an arbiter."""
    moment = WallTime(arbiter.clock, wall)
    about = About("instance-1", "0.0.test", arbiter.clock())
    return Feed(
        State(arbiter.runtime.census, about, "node-1", moment, analysis),
        arbiter.history,
        arbiter.runtime.census,
        revision=lambda: arbiter.runtime.revision,
        changed=arbiter.runtime.changed_since,
        wall=wall,
        moment=moment,
    )


class Watcher:
    """Reads what a feed sends, and keeps what it comes to."""

    def __init__(self, feed: Feed) -> None:
        self._place = feed.place()
        self._feed = feed
        self.said: list[dict[str, Any]] = []
        self.beats = 0
        self.seen: dict[str, Any] = {}
        self.events: list[Any] = []
        self.spans: dict[str, Any] = {}
        self.readings: list[Any] = []

    def __enter__(self) -> Self:
        self._place.__enter__()
        self._news = self._feed.news()
        return self

    def __exit__(self, *_: object) -> None:
        self._place.__exit__(None, None, None)

    async def next(self) -> None:
        """Takes what comes next."""
        text = await asyncio.wait_for(anext(self._news), PATIENCE_SECONDS)
        kind, data = text.decode().split("\n")[:2]
        if kind == "event: beat":
            self.beats += 1
            return
        assert kind == "event: news"
        news = json.loads(data.removeprefix("data: "))
        self.said.append(news)
        self.seen.update(news)
        self.events += [event for event in news["events"] if event["n"] not in {each["n"] for each in self.events}]
        self.spans.update({span["id"]: span for span in news["spans"]})
        self.readings += news["readings"]

    async def until(self, condition: Any) -> None:
        """Reads on until it is so."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (self.seen and condition(self)):
                await self.next()


class Site:
    """A console over HTTP."""

    def __init__(self, port: int, feed: Feed) -> None:
        self.port = port
        self.feed = feed

    async def ask(self, request: bytes) -> bytes:
        """Sends a request on a connection of its own, and reads until that ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        try:
            return await asyncio.wait_for(reader.read(), PATIENCE_SECONDS)
        finally:
            writer.close()

    async def get(self, path: str, *headers: str, method: str = "GET", host: str = "127.0.0.1") -> "Answer":
        """The answer to a request."""
        lines = (f"{method} {path} HTTP/1.1", f"Host: {host}:{self.port}", "Connection: close", *headers, "", "")
        return Answer(await self.ask("\r\n".join(lines).encode()))

    async def post(self, path: str, said: object, *headers: str, token: str = TOKEN) -> "Answer":
        """The answer to something that is to be done."""
        body = said if isinstance(said, str) else json.dumps(said)
        lines = (
            f"POST {path} HTTP/1.1",
            f"Host: 127.0.0.1:{self.port}",
            "Connection: close",
            f"Content-Length: {len(body.encode())}",
            "Content-Type: application/json",
            *([f"Authorization: Bearer {token}"] if token else []),
            *headers,
            "",
            body,
        )
        return Answer(await self.ask("\r\n".join(lines).encode()))


class Answer:
    """An answer of HTTP."""

    def __init__(self, whole: bytes) -> None:
        head, _, self.body = whole.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}

    def json(self) -> Any:
        """What it says."""
        return json.loads(self.body)


@asynccontextmanager
async def served(arbiter: InProcess) -> AsyncIterator[Site]:
    """The console of an arbiter, over HTTP."""
    listener = http.bind("127.0.0.1", 0)
    feed = feed_of(arbiter)
    end = http.serve(
        listener, app.create(None, lambda: None, console=site.routes(feed, Actions(arbiter.runtime), Guard(TOKEN)))
    )
    with no_errors_logged():
        try:
            yield Site(listener.getsockname()[1], feed)
        finally:
            feed.close()
            await end()


@contextlib.asynccontextmanager
async def streaming(site: Site) -> AsyncIterator[asyncio.StreamReader]:
    """A stream that is being read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(f"GET /console/feed HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\n\r\n".encode())
    try:
        yield reader
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
