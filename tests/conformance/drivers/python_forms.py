"""What the two forms of the Python client differ in: how a program calls, holds a block, and gives up.

Law: nothing here knows the protocol.
"""

import asyncio
import queue
import signal
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from gpuarbiter import Arbiter, AsyncArbiter

T = TypeVar("T")


class GivenUp(Exception):  # noqa: N818 -- an outcome
    """The caller gave up."""


class Form(Protocol):
    """How a program uses one form of the library."""

    arbiter: type[Any]

    async def call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Calls a method of the library."""

    async def interruptible(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """The same for one that will be given up; raises GivenUp then."""

    def interrupt(self, task: "asyncio.Task[Any]") -> None:
        """Gives it up."""

    async def block(self, manager: Any, body: Callable[[Any], Awaitable[None]]) -> None:
        """Does work in a with-block."""

    def function(self, work: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        """Work as the library's `run` takes it."""


class Asynchronous:
    """With AsyncArbiter: a task is cancelled."""

    arbiter = AsyncArbiter

    async def call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        return await function(*arguments, **options)

    async def interruptible(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            return await function(*arguments, **options)
        except asyncio.CancelledError:
            raise GivenUp from None

    def interrupt(self, task: "asyncio.Task[Any]") -> None:
        task.cancel()

    async def block(self, manager: Any, body: Callable[[Any], Awaitable[None]]) -> None:
        async with manager as lease:
            await body(lease)

    def function(self, work: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        return work


class Synchronous:
    """With Arbiter, in threads; the main thread is kept for what will be interrupted by Ctrl-C."""

    arbiter = Arbiter

    def __init__(self) -> None:
        self._main: queue.Queue[tuple[Future[Any], Callable[[], Any]] | None] = queue.Queue()
        self._interrupting = threading.Event()

    async def call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        return await asyncio.to_thread(function, *arguments, **options)

    async def interruptible(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        outcome: Future[Any] = Future()
        self._main.put((outcome, lambda: function(*arguments, **options)))
        return await asyncio.wrap_future(outcome)

    def interrupt(self, task: "asyncio.Task[Any]") -> None:  # noqa: ARG002 -- there is one main thread
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    async def block(self, manager: Any, body: Callable[[Any], Awaitable[None]]) -> None:
        loop = asyncio.get_running_loop()

        def in_a_block() -> None:
            with manager as lease:
                asyncio.run_coroutine_threadsafe(_started(body(lease)), loop).result()

        await asyncio.to_thread(in_a_block)

    def function(self, work: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        loop = asyncio.get_running_loop()
        return lambda *lease: asyncio.run_coroutine_threadsafe(_started(work(*lease)), loop).result()

    def serve_main_thread(self) -> None:
        """Runs what will be interrupted, until `None` comes."""
        while (job := self._main.get()) is not None:
            outcome, work = job
            try:
                outcome.set_result(work())
            except KeyboardInterrupt:
                outcome.set_exception(GivenUp())
            except BaseException as error:  # noqa: BLE001 -- whoever waits for it raises it
                outcome.set_exception(error)

    def end(self) -> None:
        """Nothing more comes for the main thread."""
        self._main.put(None)


async def _started(work: Awaitable[T]) -> T:
    return await work
