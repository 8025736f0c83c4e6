"""HTTP over a real socket: what monitors and people ask."""

import asyncio
import http.client
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from gpuarbiter_server.web import app, serving
from support.logs import no_errors_logged

CLASSIC = "text/plain; version=0.0.4; charset=utf-8"


class Site:
    """A served application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.missing: str | None = None
        self.listener = serving.bind("127.0.0.1", 0)
        self.port: int = self.listener.getsockname()[1]

    async def get(self, path: str, method: str = "GET") -> Any:
        """The answer to a request; its `body` has been read."""
        return await asyncio.to_thread(self._get, path, method)

    def _get(self, path: str, method: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path)
            answer: Any = connection.getresponse()
            answer.body = answer.read()
            return answer
        finally:
            connection.close()


@asynccontextmanager
async def served() -> AsyncIterator[Site]:
    site = Site()
    end = serving.serve(site.listener, app.create(site.registry, lambda: site.missing))
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
        Counter("gpu_arbiter_things", "Things.", registry=site.registry).inc(3)
        answer = await site.get("/metrics")
        assert (answer.status, answer.getheader("content-type")) == (200, CLASSIC)
        assert b"gpu_arbiter_things_total 3.0\n" in answer.body
        head = await site.get("/metrics", "HEAD")
        assert (head.status, head.getheader("content-type"), head.body) == (200, CLASSIC, b"")
        assert head.getheader("content-length") == str(len(answer.body))


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
        end = serving.serve(site.listener, app.create(site.registry, lambda: None))
        answer = await asyncio.to_thread(early.makefile("rb").read)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        await end()


async def test_the_ipv6_loopback_can_be_listened_on():
    with serving.bind("::1", 0) as listener:
        assert listener.family is socket.AF_INET6


async def test_a_reader_that_does_not_read_does_not_keep_it_from_ending():
    site = Site()
    # More than a connection buffers.
    Counter("gpu_arbiter_long", "x" * 20_000_000, registry=site.registry)
    end = serving.serve(site.listener, app.create(site.registry, lambda: None))
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as silent:
        silent.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.to_thread(silent.recv, 1, socket.MSG_PEEK)
        await asyncio.wait_for(end(), 10)
