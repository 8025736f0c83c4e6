"""/console over HTTP: what is served, with which headers, and to whom."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources

import pytest

from fakes.polling import async_until
from gpuarbiter_server.web import serving as http
from gpuarbiter_server.web.console import feed as feed_module
from support.server import serving

from .consoles import Site, served, streaming

STATIC = resources.files("gpuarbiter_server.web.console") / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
)


@asynccontextmanager
async def console() -> AsyncIterator[Site]:
    async with serving() as arbiter, served(arbiter) as site:
        yield site


async def test_the_page_and_all_that_it_names_is_there_and_nothing_of_elsewhere():
    async with console() as site:
        page = await site.get("/console")
        assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        named = re.findall(r'(?:src|href)="([^"#]+)"', page.body.decode())
        assert len(named) >= 4
        for name in named:
            assert name.startswith("console/")
            assert (await site.get(f"/{name}")).status == 200
        modules = [each.name for each in STATIC.iterdir() if each.name.endswith(".js")]
        for module in modules:
            text = (await site.get(f"/console/{module}")).body.decode()
            assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
            for imported in re.findall(r'from "\./([^"]+)"', text):
                assert imported in modules, f"{module} imports {imported}"


async def test_every_answer_forbids_what_is_not_of_here():
    async with console() as site:
        for path in ("/console", "/console/app.js", "/console/no-such-file", "/console/", "/console/icon.svg"):
            headers = (await site.get(path)).headers
            assert headers["content-security-policy"] == POLICY, path
            assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


async def test_files_are_asked_for_anew_and_sent_only_when_they_have_changed():
    async with console() as site:
        first = await site.get("/console/style.css")
        assert (first.headers["cache-control"], first.headers["content-type"]) == (
            "no-cache",
            "text/css; charset=utf-8",
        )
        again = await site.get("/console/style.css", f"If-None-Match: {first.headers['etag']}")
        assert (again.status, again.body) == (304, b"")
        changed = await site.get("/console/style.css", 'If-None-Match: "another"')
        assert (changed.status, changed.body) == (200, first.body)


@pytest.mark.parametrize(
    "path",
    [
        "/console/nothing",
        "/console/index.html",
        "/console/__init__.py",
        "/console/..%2Fsite.py",
        "/console/a/b",
        "/consoles",
    ],
)
async def test_what_is_not_there_answers_404(path: str):
    async with console() as site:
        assert (await site.get(path)).status == 404


async def test_a_slash_too_many_leads_to_the_page_behind_any_prefix():
    async with console() as site:
        answer = await site.get("/console/")
        assert (answer.status, answer.headers["location"]) == (308, "../console")


async def test_files_are_only_read():
    async with console() as site:
        for method in ("POST", "PUT", "DELETE"):
            assert (await site.get("/console", method=method)).status == 405


async def test_a_stream_says_what_there_is_and_ends_with_the_arbiter():
    async with console() as site:
        async with streaming(site) as reader:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            assert b"200 OK" in head
            assert b"content-type: text/event-stream" in head
            assert b"content-length" not in head
            await asyncio.wait_for(reader.readuntil(b'"gpus":[{"key":"gpu:0"'), 10)
            site.feed.close()
            assert (await asyncio.wait_for(reader.read(), 10)).endswith(b"0\r\n\r\n")
        await async_until(lambda: site.feed._watchers == 0)


async def test_the_feed_is_for_this_machine_and_its_own_page():
    async with console() as site:
        for headers in (
            ("Origin: http://evil.example",),
            ("Origin: http://[",),
            ("Sec-Fetch-Site: cross-site",),
            ("Sec-Fetch-Site: same-site",),
        ):
            assert (await site.get("/console/feed", *headers)).status == 403
        assert (await site.get("/console/feed", host="rebound.example")).status == 403
        assert (await site.get("/console/feed", "Sec-Fetch-Site: same-origin", method="HEAD")).status == 200


async def test_who_watches_has_a_number(monkeypatch: pytest.MonkeyPatch):
    async with console() as site:
        monkeypatch.setattr(feed_module, "MOST_WATCHERS", 1)
        async with streaming(site) as reader:
            await asyncio.wait_for(reader.readuntil(b"news"), 10)
            refused = await site.get("/console/feed")
            assert (refused.status, refused.headers["retry-after"]) == (503, "5")
            assert (await site.get("/console/feed", method="HEAD")).status == 503
        await async_until(lambda: site.feed._watchers == 0, "for the place to be free")
        async with streaming(site) as reader:
            assert b"200 OK" in await asyncio.wait_for(reader.readline(), 10)


async def test_a_stream_outlasts_the_patience_with_others_as_long_as_it_is_read(monkeypatch: pytest.MonkeyPatch):
    async with console() as site:
        monkeypatch.setattr(http, "_PATIENCE", 0.4)
        monkeypatch.setattr(feed_module, "HEARTBEAT", 0.1)
        async with streaming(site) as reader:
            # More heartbeats than fit into the patience.
            for _ in range(10):
                await asyncio.wait_for(reader.readuntil(b"event: beat"), 10)


async def test_who_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch):
    async with console() as site:
        monkeypatch.setattr(http, "_PATIENCE", 0.3)
        monkeypatch.setattr(feed_module, "HEARTBEAT", 0.01)
        # More than a connection buffers.
        monkeypatch.setattr(site.feed, "_since", lambda _seen: "x" * 20_000_000)
        async with streaming(site) as reader:
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            await async_until(lambda: site.feed._watchers == 1)
            await async_until(lambda: site.feed._watchers == 0, "for it to be given up")
