"""Deliveries to a control webhook: taken, tried again, put aside."""

import asyncio
import contextlib
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import h11
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.polling import async_until
from gpuarbiter_server.analysis import webhook as module
from gpuarbiter_server.analysis.webhook import Receiver, Retries, Undelivered, Webhook, retry_after

SECRET = b"made-up"
# Sun, 06 Nov 1994 08:49:37 GMT
WALL = 784111777.0
# A Prometheus may tell half a character.
FACTS = {"gpu_id": "gpu:0", "pod": "训练\ud800"}
Answer = Callable[[httpx.Request], Awaitable[httpx.Response]]


class Site:
    """A webhook and its receiver; pauses are counted instead of waited."""

    def __init__(self, *answers: httpx.Response | Exception, secret: bytes = SECRET, timeout: float = 5.0) -> None:
        self.requests: list[httpx.Request] = []
        self.done: list[Mapping[str, Any]] = []
        self.buried: list[Undelivered] = []
        self.pauses: list[float] = []
        self.now = 1000.0
        self.answers = list(answers)
        self.webhook = Webhook(
            Receiver("http://control/gpus", secret, timeout),
            retries=Retries(attempts=4),
            done=self.done.append,
            bury=self.buried.append,
            clock=lambda: self.now,
            wall=lambda: WALL,
            pause=self._pause,
        )
        self.webhook._transport = httpx.MockTransport(self._answer)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else httpx.Response(200)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self.webhook.run_forever())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def deliver(self) -> None:
        """One delivery, to its end."""
        async with self.running():
            self.webhook.offer(FACTS)
            await async_until(lambda: bool(self.done or self.buried))


async def test_a_delivery_is_json_with_a_number_a_time_and_a_signature() -> None:
    site = Site()
    await site.deliver()
    (request,) = site.requests
    body = json.loads(request.content)
    assert body == {"delivery_id": request.headers["X-GPU-Arbiter-Delivery"], **FACTS}
    assert (request.method, request.headers["content-type"]) == ("POST", "application/json")
    assert request.headers["X-GPU-Arbiter-Timestamp"] == "784111777"
    expected = hmac.new(SECRET, b"784111777." + request.content, hashlib.sha256).hexdigest()
    assert request.headers["X-GPU-Arbiter-Signature"] == f"sha256={expected}"
    assert site.done == [body]


async def test_without_a_secret_there_is_no_signature() -> None:
    site = Site(secret=b"")
    await site.deliver()
    assert "X-GPU-Arbiter-Signature" not in site.requests[0].headers


@pytest.mark.parametrize(
    "failure",
    [httpx.Response(500), httpx.Response(503), httpx.Response(429), httpx.Response(408), httpx.ConnectError("refused")],
    ids=str,
)
async def test_what_may_pass_is_tried_again_with_longer_pauses(failure: httpx.Response | Exception) -> None:
    site = Site(failure, failure)
    await site.deliver()
    assert len({request.headers["X-GPU-Arbiter-Delivery"] for request in site.requests}) == 1
    assert (len(site.requests), len(site.done), site.buried) == (3, 1, [])
    assert 0.5 <= site.pauses[0] <= 1.0 <= site.pauses[1] <= 2.0


@pytest.mark.parametrize("status", [302, 307, 400, 401, 404, 410, 422])
async def test_what_will_not_pass_is_put_aside_at_once(status: int) -> None:
    site = Site(httpx.Response(status, headers={"location": "http://elsewhere/"}))
    await site.deliver()
    (buried,) = site.buried
    assert (buried.reason, buried.attempts, buried.body["gpu_id"]) == (f"HTTP {status}", 1, "gpu:0")
    assert buried.delivery_id == site.requests[0].headers["X-GPU-Arbiter-Delivery"]
    assert [request.url.host for request in site.requests] == ["control"]


@pytest.mark.parametrize(
    ("failure", "reason"),
    [(httpx.Response(502), "HTTP 502"), (httpx.ConnectError(""), "ConnectError"), (httpx.ReadError("cut"), "cut")],
)
async def test_after_so_many_attempts_it_is_put_aside(failure: httpx.Response | Exception, reason: str) -> None:
    site = Site(*[failure] * 9)
    await site.deliver()
    (buried,) = site.buried
    assert (buried.reason, buried.attempts, len(site.requests), len(site.pauses)) == (reason, 4, 4, 3)


async def test_an_address_that_cannot_be_asked_stops_nothing() -> None:
    site = Site(ValueError("no such thing"))
    async with site.running():
        site.webhook.offer(FACTS)
        site.webhook.offer(FACTS)
        await async_until(lambda: bool(site.done))
    assert [(each.reason, each.attempts) for each in site.buried] == [("ValueError", 1)]


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} -?\d+ \d+:\d+:\d+ .*"))
def test_whatever_a_receiver_says_of_when_is_a_time(said: str) -> None:
    assert retry_after(said, WALL) >= 0


async def test_a_receiver_that_drips_is_given_up_in_time() -> None:
    site = Site(timeout=0.01)

    async def never(_request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    site.webhook._transport = httpx.MockTransport(never)
    await site.deliver()
    assert site.buried[0].reason == "no answer within 0.01 s"


@pytest.mark.parametrize(
    ("said", "waited"),
    [
        ("7", 7.0),
        (" 120 ", 120.0),
        ("Sun, 06 Nov 1994 08:50:07 GMT", 30.0),
        ("Sun, 06 Nov 1994 08:50:07", 30.0),
        ("Sun, 06 Nov 1994 08:49:00 GMT", 0.0),
        ("", 0.0),
        ("soon", 0.0),
        ("-5", 0.0),
        ("1e9", 0.0),
        ("٣", 0.0),
        ("9" * 5000, 9999999999.0),
    ],
)
def test_when_a_receiver_wants_to_be_asked_again(said: str, waited: float) -> None:
    assert retry_after(said, WALL) == waited


@pytest.mark.parametrize(("said", "pause"), [("30", 30.0), ("86400", 300.0)])
async def test_a_receiver_that_asks_for_time_gets_it_up_to_a_bound(said: str, pause: float) -> None:
    site = Site(httpx.Response(503, headers={"retry-after": said}))
    await site.deliver()
    assert site.pauses == [pause]


async def test_what_is_too_many_or_too_old_is_put_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_WAITING", 2)
    site = Site()
    for _ in range(3):
        site.webhook.offer(FACTS)
    (buried,) = site.buried
    assert buried.reason == "2 others wait already"
    site.now += 601
    async with site.running():
        await async_until(lambda: len(site.buried) == 3)
    assert site.buried[1].reason == "it waited for 600 s"
    assert site.requests == []


async def test_a_stop_puts_aside_what_is_under_way_and_what_waits() -> None:
    site = Site()
    asked = asyncio.Event()

    async def never(_request: httpx.Request) -> httpx.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    site.webhook._transport = httpx.MockTransport(never)
    async with site.running():
        for _ in range(6):
            site.webhook.offer(FACTS)
        await asked.wait()
    assert [each.reason for each in site.buried] == ["the arbiter stopped"] * 6
    assert sorted(each.attempts for each in site.buried) == [0, 0, 1, 1, 1, 1]


async def test_of_an_answer_that_does_not_end_little_is_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    receive = h11.Connection.receive_data

    def counted(self: h11.Connection, data: bytes) -> None:
        read.append(len(data))
        receive(self, data)

    monkeypatch.setattr(h11.Connection, "receive_data", counted)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000 + b"HTTP/1.1 204 No Content\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    site = Site(timeout=60.0)
    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        host, port = server.sockets[0].getsockname()
        site.webhook = Webhook(
            Receiver(f"http://{host}:{port}/", SECRET, 60.0),
            retries=Retries(attempts=1),
            done=site.done.append,
            bury=site.buried.append,
            clock=lambda: site.now,
            wall=lambda: WALL,
        )
        await site.deliver()
    assert (len(site.done), site.buried) == (1, [])
    # What came before the bound was set is there already.
    assert sorted(read)[len(read) // 2] <= 16384


def test_neither_address_nor_secret_is_in_a_repr() -> None:
    assert repr(Receiver("http://control/token", SECRET, 5.0)) == "Receiver(timeout=5.0)"
