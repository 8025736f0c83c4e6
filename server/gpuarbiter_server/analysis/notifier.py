"""Sends notifications to the services of apprise: one at a time, on a thread, without anybody waiting for them.

Law: the addresses are secrets, with tokens and passwords in them: none is logged or shown, and neither is what apprise
says of them. What waits and how long one may take has a bound. Imported where somebody is to be notified, because
apprise is.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

import apprise

from gpuarbiter_server.analysis.message import Message

log = logging.getLogger(__name__)

_MOST_WAITING = 8
_MOST_ADDRESSES = 32
# Seconds for the first look at the addresses, which loads every service there is.
_LOADING = 60.0


# What these log has addresses in it.
_TALKATIVE = ("apprise", "requests", "requests_oauthlib", "oauthlib", "urllib3")


class OnThread(Protocol):
    """Calls a function on a thread of its own; TimeoutError when it takes longer than so many seconds."""

    def __call__(self, seconds: float, function: Callable[[], list[str]], /) -> Awaitable[list[str]]:
        """What it returns or raises."""


class Notifier:
    """Sends what is offered to it, once it runs.

    addresses: as apprise takes them, such as mailto://…, in their order. timeout: seconds for one message, however many
    addresses it goes to. done: is told of each message whether every service took it.
    """

    def __init__(
        self, addresses: Sequence[str], *, timeout: float, on_thread: OnThread, done: Callable[[bool], None]
    ) -> None:
        self._addresses = addresses
        self._timeout = timeout
        self._on_thread = on_thread
        self._done = done
        self._waiting: asyncio.Queue[Message] = asyncio.Queue(_MOST_WAITING)
        self._services: list[apprise.Apprise] = []
        # Held by the thread that sends; one that hangs is not joined by others.
        self._sending = threading.Lock()
        for name in _TALKATIVE:
            # Whatever levels are configured. Each has a handler of its own that does nothing.
            logging.getLogger(name).propagate = False

    def offer(self, message: Message) -> None:
        """Has it sent."""
        try:
            self._waiting.put_nowait(message)
        except asyncio.QueueFull:
            log.warning("a notification is dropped: %d others wait already", _MOST_WAITING)
            self._done(False)

    async def run_forever(self) -> None:
        """Sends, without end."""
        await self._call(self._load, _LOADING)
        while True:
            message = await self._waiting.get()
            self._done(await self._call(partial(self._send, message), self._timeout))

    async def _call(self, function: Callable[[], list[str]], seconds: float) -> bool:
        """Whether nothing of it failed."""
        try:
            failed = await self._on_thread(seconds, function)
        except TimeoutError:
            log.warning("notifications: not done within %g s", seconds)
            return False
        except Exception as error:  # noqa: BLE001 -- whatever a service raises, the next message is to go out
            # Its text may have an address in it.
            log.warning("notifications: %s", type(error).__name__)
            return False
        for what in failed:
            log.warning("notifications: %s", what)
        return not failed

    def _load(self) -> list[str]:
        """On the thread, because the first address loads every service."""
        # A time-out of apprise's would have it call from a pool, which the end of the process waits for: ours do.
        asset = apprise.AppriseAsset(
            app_id="GpuArbiter",
            app_desc="GpuArbiter",
            app_url="",
            image_url_mask="",
            image_url_logo="",
            async_mode=False,
            http_redirects=False,
            service_timeout=0,
        )
        failed = []
        for number, address in enumerate(self._addresses[:_MOST_ADDRESSES], 1):
            service = apprise.Apprise(asset=asset)
            if service.add(address):
                self._services.append(service)
            else:
                failed.append(f"address {number} is none that apprise knows; it is left out")
        if len(self._addresses) > _MOST_ADDRESSES:
            failed.append(f"the first {_MOST_ADDRESSES} of {len(self._addresses)} addresses are used")
        return failed

    def _send(self, message: Message) -> list[str]:
        """What failed."""
        if not self._sending.acquire(blocking=False):
            return ["the one before is still under way; this one is dropped"]
        try:
            failed = [f"{_name(each)} did not take one" for each in self._services if not _notify(each, message)]
            return failed if self._services else ["there is no address"]
        finally:
            self._sending.release()


def _notify(service: apprise.Apprise, message: Message) -> bool:
    return bool(
        service.notify(
            title=message.title,
            body=message.body,
            body_format=apprise.NotifyFormat.TEXT,
            notify_type=apprise.NotifyType.WARNING,
            interpret_escapes=False,
        )
    )


def _name(service: apprise.Apprise) -> str:
    """Which service it is, without its address."""
    return str(service[0].service_name)
