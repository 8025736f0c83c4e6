"""Notifications: through the services that apprise knows, one at a time, and no address in the log."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator

import apprise
import pytest

from e2e.harness.receiver import Receiver
from fakes.polling import async_until
from gpuarbiter_server.analysis import notifier as module
from gpuarbiter_server.analysis.message import Message
from gpuarbiter_server.analysis.notifier import Notifier
from gpuarbiter_server.runtime.threads import within

MESSAGE = Message("title", "one < two & *three*\nline")


@pytest.fixture
def log() -> Iterator[list[str]]:
    """All that reaches the log, whatever its level; pytest's own handler hears also what does not."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    root, listener = logging.getLogger(), Listener()
    level = root.level
    root.addHandler(listener)
    root.setLevel(logging.DEBUG)
    yield said
    root.removeHandler(listener)
    root.setLevel(level)


@pytest.fixture
def done() -> list[bool]:
    return []


@pytest.fixture
def make(done: list[bool]) -> Iterator[Callable[..., Notifier]]:
    tasks: list[asyncio.Task[None]] = []

    def start(*addresses: str, timeout: float = 20.0) -> Notifier:
        made = Notifier(addresses, timeout=timeout, on_thread=within, done=done.append)
        tasks.append(asyncio.ensure_future(made.run_forever()))
        return made

    yield start
    for task in tasks:
        task.cancel()


async def test_one_message_goes_to_every_service_as_text(make: Callable[..., Notifier], done: list[bool]) -> None:
    with Receiver() as receiver:
        make(f"json://{receiver.address}/a", f"json://{receiver.address}/b").offer(MESSAGE)
        await async_until(lambda: bool(done))
        assert done == [True]
        assert [each.path for each in receiver.posted] == ["/a", "/b"]
        body = receiver.posted[0].body
        assert (body["title"], body["message"], body["type"]) == (MESSAGE.title, MESSAGE.body, "warning")
        assert "github" not in receiver.posted[0].raw.decode()


async def test_a_service_that_fails_is_named_without_its_address(
    make: Callable[..., Notifier], done: list[bool], log: list[str]
) -> None:
    with Receiver(500) as receiver:
        made = make(f"json://user:hidden@{receiver.address}/hidden", f"json://{receiver.address}/")
        made.offer(MESSAGE)
        await async_until(lambda: bool(done))
        assert len(receiver.posted) == 2
    assert done == [False]
    assert "notifications: JSON did not take one" in log
    assert not any("hidden" in line for line in log)


async def test_an_address_that_is_none_is_left_out(
    make: Callable[..., Notifier], done: list[bool], log: list[str]
) -> None:
    made = make("nonsense://hidden", "hidden")
    made.offer(MESSAGE)
    await async_until(lambda: bool(done))
    assert done == [False]
    assert "notifications: address 2 is none that apprise knows; it is left out" in log
    assert "notifications: there is no address" in log
    assert not any("hidden" in line for line in log)


async def test_a_service_that_hangs_holds_nobody_up_and_is_not_joined_by_others(
    make: Callable[..., Notifier], done: list[bool], log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    calls: list[str] = []

    def hang(_service: apprise.Apprise, message: Message) -> bool:
        calls.append(message.title)
        return over.wait()

    monkeypatch.setattr(module, "_notify", hang)
    made = make("json://localhost/", timeout=0.2)
    made.offer(MESSAGE)
    made.offer(MESSAGE)
    await async_until(lambda: len(done) == 2)
    over.set()
    assert (done, calls) == ([False, False], ["title"])
    assert "notifications: not done within 0.2 s" in log
    assert "notifications: the one before is still under way; this one is dropped" in log


async def test_whatever_a_service_raises_the_next_message_goes_out(
    make: Callable[..., Notifier], done: list[bool], log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: list[Exception | None] = [RuntimeError("json://hidden"), None]

    def fail(_service: apprise.Apprise, _message: Message) -> bool:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        return True

    monkeypatch.setattr(module, "_notify", fail)
    made = make("json://localhost/")
    made.offer(MESSAGE)
    made.offer(MESSAGE)
    await async_until(lambda: len(done) == 2)
    assert done == [False, True]
    assert "notifications: RuntimeError" in log
    assert not any("hidden" in line for line in log)


async def test_what_waits_and_the_addresses_have_a_bound(
    make: Callable[..., Notifier], done: list[bool], log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_ADDRESSES", 1)
    monkeypatch.setattr(module, "_notify", lambda _service, _message: True)
    made = make("json://localhost/1", "json://localhost/2")
    for _ in range(9):
        made.offer(MESSAGE)
    assert done == [False]
    assert "a notification is dropped: 8 others wait already" in log
    await async_until(lambda: len(done) == 9)
    assert "notifications: the first 1 of 2 addresses are used" in log
