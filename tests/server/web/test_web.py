"""HTTP over a real socket: what monitors and people ask."""

import asyncio
import contextlib
import http.client
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fakes.polling import async_until
from gpuarbiter_server.web import app, serving
from support.logs import no_errors_logged

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
CLASSIC = "text/plain; version=0.0.4; charset=utf-8"


class Site:
    """A served application."""

    def __init__(self) -> None:
        self.lines = ["# HELP gpu_arbiter_things_total Things.\n", "gpu_arbiter_things_total 3\n"]
        self.missing: str | None = None
        self.listener = serving.bind("127.0.0.1", 0)
        self.port: int = self.listener.getsockname()[1]

    def page(self, *, openmetrics: bool) -> Iterator[bytes]:
        """A part for each line, and the end that the format wants."""
        yield from (line.encode() for line in self.lines)
        if openmetrics:
            yield b"# EOF\n"

    async def get(self, path: str, method: str = "GET", **headers: str) -> Any:
        """The answer to a request; its `body` has been read."""
        return await asyncio.to_thread(self._get, path, method, headers)

    def _get(self, path: str, method: str, headers: dict[str, str]) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, headers=headers)
            answer: Any = connection.getresponse()
            answer.body = answer.read()
            return answer
        finally:
            connection.close()


@asynccontextmanager
async def served(*, metrics: bool = True) -> AsyncIterator[Site]:
    site = Site()
    end = serving.serve(site.listener, app.create(site.page if metrics else None, lambda: site.missing))
    with no_errors_logged():
        try:
            yield site
        finally:
            await end()


async def test_it_is_healthy_as_long_as_it_answers():
    async with served() as site:
        site.missing = "everything"
        answer = await site.get("/healthz")
        assert (answer.status, answer.body) == (200, b"OK")


async def test_it_is_ready_unless_something_is_missing():
    async with served() as site:
        answer = await site.get("/readyz")
        assert (answer.status, answer.body) == (200, b"OK")
        site.missing = "stopping"
        answer = await site.get("/readyz")
        assert (answer.status, answer.body) == (503, b"stopping")


async def test_metrics_come_in_the_classic_format_to_head_as_well():
    async with served() as site:
        answer = await site.get("/metrics")
        assert (answer.status, answer.getheader("content-type")) == (200, CLASSIC)
        assert answer.body.decode() == "".join(site.lines)
        head = await site.get("/metrics", "HEAD")
        assert (head.status, head.getheader("content-type"), head.body) == (200, CLASSIC, b"")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1", OPENMETRICS),
        ("application/openmetrics-text", OPENMETRICS),
        ("APPLICATION/OpenMetrics-Text; q=1, text/plain", OPENMETRICS),
        ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", CLASSIC),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.9", CLASSIC),
        ("application/openmetrics-text;q=0", CLASSIC),
        ("application/openmetrics-text;q=nonsense", CLASSIC),
        ("*/*", CLASSIC),
        ("application/json", CLASSIC),
        (",;,q=", CLASSIC),
    ],
)
async def test_a_scraper_gets_the_format_that_it_prefers(accept: str, expected: str):
    async with served() as site:
        answer = await site.get("/metrics", Accept=accept)
        assert (answer.status, answer.getheader("content-type")) == (200, expected)
        assert answer.body.endswith(b"# EOF\n") == (expected == OPENMETRICS)


async def test_metrics_can_be_switched_off():
    async with served(metrics=False) as site:
        assert (await site.get("/metrics")).status == 404
        assert (await site.get("/healthz")).status == 200


@pytest.mark.parametrize("path", ["/", "/nonsense", "/metrics/more", "//healthz", "/%2e%2e/etc/passwd"])
async def test_what_is_not_there_is_not_found(path: str):
    async with served() as site:
        assert (await site.get(path)).status == 404


async def test_nothing_can_be_changed():
    async with served() as site:
        for path in ("/healthz", "/readyz", "/metrics"):
            for method in ("POST", "PUT", "DELETE"):
                assert (await site.get(path, method)).status == 405


async def test_an_address_belongs_to_one_from_the_moment_it_is_bound():
    listener = serving.bind("127.0.0.1", 0)
    with listener, pytest.raises(OSError, match="in use"):
        serving.bind(*listener.getsockname())


async def test_who_connects_before_it_serves_is_answered_once_it_does():
    site = Site()
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as early:
        early.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        end = serving.serve(site.listener, app.create(site.page, lambda: None))
        answer = await asyncio.to_thread(early.makefile("rb").read)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        await end()


async def test_the_ipv6_loopback_can_be_listened_on():
    with serving.bind("::1", 0) as listener:
        assert listener.family is socket.AF_INET6


async def test_a_reader_that_does_not_read_does_not_keep_it_from_ending():
    site = Site()
    # More than a connection buffers.
    site.lines = ["x" * 1_000_000] * 20
    end = serving.serve(site.listener, app.create(site.page, lambda: None))
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as silent:
        silent.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.to_thread(silent.recv, 1, socket.MSG_PEEK)
        await asyncio.wait_for(end(), 10)


async def test_scrapes_at_once_are_made_one_after_the_other_so_that_others_have_their_turn():
    under_way, most = 0, 0
    site = Site()

    def page(*, openmetrics: bool) -> Iterator[bytes]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        yield from site.page(openmetrics=openmetrics)
        under_way -= 1

    end = serving.serve(site.listener, app.create(page, lambda: None))
    answers = await asyncio.gather(*(site.get("/metrics") for _ in range(20)))
    await end()
    assert {answer.body.decode() for answer in answers} == {"".join(site.lines)}
    assert most == 1


async def test_connections_have_a_number_and_the_newest_is_served(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(serving, "_MOST_CONNECTIONS", 3)
    async with served() as site:
        with contextlib.ExitStack() as stack:
            kept = [stack.enter_context(socket.create_connection(("127.0.0.1", site.port), 10)) for _ in range(3)]
            answer = await site.get("/healthz")
            assert (answer.status, answer.body) == (200, b"OK")
            # The oldest had to go, and no other.
            assert await asyncio.to_thread(received, kept.pop(0)) == b""
            for other in kept:
                other.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert b"200 OK" in await asyncio.to_thread(received, other)


async def test_who_neither_asks_nor_reads_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(serving, "_PATIENCE", 0.1)
    lost: list[object] = []
    forget = serving._Connection.connection_lost
    monkeypatch.setattr(
        serving._Connection, "connection_lost", lambda self, error: (lost.append(self), forget(self, error))
    )
    async with served() as site:
        site.lines = ["x" * 1_000_000] * 20
        with (
            socket.create_connection(("127.0.0.1", site.port), 10),
            socket.create_connection(("127.0.0.1", site.port), 10) as half,
            socket.create_connection(("127.0.0.1", site.port), 10) as deaf,
        ):
            half.sendall(b"GET /metr")
            deaf.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            await async_until(lambda: len(lost) == 3)
            assert len(await asyncio.to_thread(received, deaf)) < 20_000_000


async def test_a_request_that_breaks_off_after_its_answer_is_no_error_of_ours():
    async with served() as site:
        with socket.create_connection(("127.0.0.1", site.port), 10) as broken:
            broken.sendall(b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            await asyncio.to_thread(broken.recv, 1)
            broken.sendall(b"no chunk\r\n")
            await asyncio.to_thread(received, broken)


def received(connection: socket.socket) -> bytes:
    """All that comes until the other side ends, in whatever way."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)
