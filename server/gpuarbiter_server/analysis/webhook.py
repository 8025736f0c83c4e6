"""Tells a control webhook of GPUs: one POST for each, tried again where that may help, and put aside where it does not.

Law: nobody waits for a receiver. What waits, how long one may take, how often and for how long it is tried has a bound.
What is given up is handed to `bury` with the reason, never lost in silence. A redirect is no answer. Imported where a
webhook is configured, because httpx is.
"""

import asyncio
import contextlib
import hashlib
import hmac
import json
import random
import socket
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpx

DELIVERY = "X-GPU-Arbiter-Delivery"
TIMESTAMP = "X-GPU-Arbiter-Timestamp"
SIGNATURE = "X-GPU-Arbiter-Signature"

# As many as a run over a large fleet may find; more are put aside at once.
_MOST_WAITING = 10_000
_WORKERS = 4
# What comes too late is of no use.
_TOO_OLD = 600.0
# Of an answer that has no end, such as one of interim answers (1xx) alone, so little is read at a time that others have
# their turn in between.
_SPARING = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)]
# Statuses that may be another the next time, beside those of 500 and more.
_PASSING = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a delivery is tried, and what is waited in between. Seconds."""

    attempts: int = 5
    # After the first attempt; twice that after the next, and so on, each less up to a half by chance.
    first: float = 1.0
    longest: float = 60.0
    # A receiver that says Retry-After is heeded up to this.
    longest_asked: float = 300.0


class Undelivered(NamedTuple):
    """A delivery that is given up."""

    delivery_id: str
    body: Mapping[str, Any]
    attempts: int
    reason: str


class _Delivery(NamedTuple):
    delivery_id: str
    body: Mapping[str, Any]
    since: float


class _Failure(NamedTuple):
    reason: str
    # Whether it is worth another attempt, and after how many seconds at least.
    passes: bool = True
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where deliveries go. secret: what they are signed with; empty: they are not. timeout: seconds for one attempt."""

    url: str = field(repr=False)
    secret: bytes = field(repr=False)
    timeout: float


class Webhook:
    """Delivers what is offered to it, once it runs.

    done: is told of each delivery that was taken. bury: of each that was given up. clock: monotonic seconds; wall:
    seconds since 1970. pause: waits for so many seconds.
    """

    def __init__(
        self,
        receiver: Receiver,
        *,
        retries: Retries,
        done: Callable[[Mapping[str, Any]], None],
        bury: Callable[[Undelivered], None],
        clock: Callable[[], float],
        wall: Callable[[], float],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._receiver = receiver
        self._retries = retries
        self._done = done
        self._bury = bury
        self._clock = clock
        self._wall = wall
        self._pause = pause
        self._waiting: asyncio.Queue[_Delivery] = asyncio.Queue(_MOST_WAITING)
        # No client: that would log addresses, which may have tokens in them, follow redirects, and heed proxies, which
        # are meant for the internet.
        self._transport: httpx.AsyncBaseTransport = httpx.AsyncHTTPTransport(socket_options=_SPARING)

    def offer(self, facts: Mapping[str, Any]) -> None:
        """Has it delivered."""
        delivery_id = str(uuid.uuid4())
        body = {"delivery_id": delivery_id, **facts}
        try:
            self._waiting.put_nowait(_Delivery(delivery_id, body, self._clock()))
        except asyncio.QueueFull:
            self._bury(Undelivered(delivery_id, body, 0, f"{_MOST_WAITING} others wait already"))

    async def run_forever(self) -> None:
        """Delivers, without end; what is left when it is cancelled is given up."""
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(_WORKERS):
                    workers.create_task(self._work())
        finally:
            while not self._waiting.empty():
                left = self._waiting.get_nowait()
                self._bury(Undelivered(left.delivery_id, left.body, 0, "the arbiter stopped"))
            with contextlib.suppress(Exception):
                await self._transport.aclose()

    async def _work(self) -> None:
        while True:
            delivery = await self._waiting.get()
            if self._clock() - delivery.since > _TOO_OLD:
                self._bury(Undelivered(delivery.delivery_id, delivery.body, 0, f"it waited for {_TOO_OLD:g} s"))
                continue
            await self._deliver(delivery)

    async def _deliver(self, delivery: _Delivery) -> None:
        failure = _Failure("")
        attempts = 0
        try:
            while failure.passes and attempts < self._retries.attempts:
                if attempts:
                    await self._pause(self._seconds(attempts, failure.after))
                attempts += 1
                found = await self._attempt(delivery)
                if found is None:
                    self._done(delivery.body)
                    return
                failure = found
        except asyncio.CancelledError:
            self._bury(Undelivered(delivery.delivery_id, delivery.body, attempts, "the arbiter stopped"))
            raise
        self._bury(Undelivered(delivery.delivery_id, delivery.body, attempts, failure.reason))

    def _seconds(self, attempts: int, asked: float) -> float:
        retries = self._retries
        pause = min(retries.longest, retries.first * 2.0 ** (attempts - 1))
        # Receivers that come back are not to be met by everybody at once.
        return max(pause * random.uniform(0.5, 1.0), min(asked, retries.longest_asked))  # noqa: S311

    async def _attempt(self, delivery: _Delivery) -> _Failure | None:
        """None: it was taken."""
        body = json.dumps(delivery.body).encode()
        headers = self._headers(delivery.delivery_id, body)
        try:
            request = httpx.Request("POST", self._receiver.url, content=body, headers=headers)
            # From the connection to the head of the answer; what is in it nobody reads.
            async with asyncio.timeout(self._receiver.timeout):
                answer = await self._transport.handle_async_request(request)
                await answer.aclose()
                return self._judge(answer)
        except TimeoutError:
            return _Failure(f"no answer within {self._receiver.timeout:g} s")
        except httpx.HTTPError as error:
            return _Failure(str(error) or type(error).__name__)
        except Exception as error:  # noqa: BLE001 -- an address that no request can be made to, say: the next is to go out
            return _Failure(type(error).__name__, passes=False)

    def _judge(self, answer: httpx.Response) -> _Failure | None:
        if answer.is_success:
            return None
        status = answer.status_code
        passes = status >= httpx.codes.INTERNAL_SERVER_ERROR or status in _PASSING
        return _Failure(f"HTTP {status}", passes, retry_after(answer.headers.get("retry-after", ""), self._wall()))

    def _headers(self, delivery_id: str, body: bytes) -> dict[str, str]:
        moment = f"{self._wall():.0f}"
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "gpu-arbiter",
            DELIVERY: delivery_id,
            TIMESTAMP: moment,
        }
        if self._receiver.secret:
            headers[SIGNATURE] = signature(self._receiver.secret, moment, body)
        return headers


def signature(secret: bytes, moment: str, body: bytes) -> str:
    """What proves that a body comes from who knows the secret, and when. moment: as it stands in its header."""
    return "sha256=" + hmac.new(secret, f"{moment}.".encode() + body, hashlib.sha256).hexdigest()


def retry_after(said: str, wall: float) -> float:
    """Seconds until a receiver wants to be asked again, by its header; 0 where it does not say."""
    said = said.strip()
    if said.isascii() and said.isdecimal():
        # More digits than any wait has are not worth the arithmetic.
        return float(said[:10])
    try:
        moment = parsedate_to_datetime(said)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - wall)
