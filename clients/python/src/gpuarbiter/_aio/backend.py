"""Where the two worlds differ, for asyncio: channels, streams, waiting, background work.

Law: `_sync/backend.py` has the same names with the same meaning, so that everything else is written once.
"""

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

from gpuarbiter import _forks, _status

# One type of exception in both worlds; grpc.aio's own subclass adds nothing.
RpcError = grpc.RpcError

T = TypeVar("T")
M = TypeVar("M")
L = TypeVar("L")

# A piece of work of the user's, with the lease and without.
GpuWork = Callable[[L], Awaitable[T]]
CpuWork = Callable[[], Awaitable[T]]

# The loop holds its tasks weakly; whoever runs in the background is held here until it is done.
_running: set[asyncio.Task[Any]] = set()


def open_channel(
    target: str, options: Sequence[tuple[str, Any]], credentials: grpc.ChannelCredentials | None
) -> grpc.aio.Channel:
    """A channel; it belongs to the running loop."""
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, credentials, options=options)


def refuse_after_fork() -> None:
    """Raises RuntimeError in a forked child that has no use of gRPC's asyncio side."""
    _forks.use_aio()


class Stream(Generic[M]):
    """A stream of messages from the arbiter, under way."""

    def __init__(self, call: Any, target: str) -> None:
        self._call = call
        self._target = target
        self._anothers = False

    async def read(self) -> M | None:
        """The next message; None at the end, and when the stream was cancelled from here.

        Raises:
            ArbiterError: the stream ended with a status other than OK.
        """
        try:
            message = await self._call.read()
        except RpcError as failure:
            raise _status.from_rpc(failure, self._target) from failure
        except asyncio.CancelledError:
            # grpc.aio raises it for a call that was cancelled, too, which is no reason to end this task.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return None
        return None if message is grpc.aio.EOF else message  # type: ignore[attr-defined]

    def cancel(self) -> None:
        """Ends the stream; a reader gets None. Safe from anywhere, and more than once."""
        if not self._anothers:
            self._call.cancel()

    def forked(self) -> None:
        """In a child: the call is the parent's, and its locks may be taken by threads that are not here."""
        _forks.leave_behind(self._call)
        self._anothers = True


class Event:
    """A flag that can be waited for, as threading.Event; asyncio's own knows no time-out."""

    def __init__(self) -> None:
        self._up = False
        self._waiters: set[asyncio.Future[None]] = set()

    def set(self) -> None:
        """Raises the flag, for good."""
        self._up = True
        for waiter in self._waiters:
            _wake(waiter)

    def is_set(self) -> bool:
        """Whether the flag is up."""
        return self._up

    async def wait(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 -- as threading.Event has it
        """Waits for the flag, for at most so many seconds; whether it is up."""
        if self._up or (timeout is not None and timeout <= 0):
            return self._up
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiters.add(waiter)
        timer = None if timeout is None else loop.call_later(timeout, _wake, waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
            if timer is not None:
                timer.cancel()
        return self._up


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


class Mailbox(Generic[M]):
    """Messages on their way to one reader; closed, it gives out what is left, and then None."""

    def __init__(self) -> None:
        self._messages: deque[tuple[M, Event | None]] = deque()
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None

    def put(self, message: M, taken: Event | None = None) -> None:
        """Hands a message in; `taken` is raised once the reader has it."""
        self._messages.append((message, taken))
        self._wake()

    def close(self) -> None:
        """Nothing more comes."""
        self._closed = True
        self._wake()

    def take_all(self) -> list[M]:
        """What is there."""
        taken = [message for message, _ in self._messages]
        self._messages.clear()
        return taken

    async def get(self, timeout: float | None = None) -> M | None:  # noqa: ASYNC109 -- as queue.Queue has it
        """The next message, waited for; None when none comes any more, or within so many seconds."""
        if not self._messages and not self._closed and (timeout is None or timeout > 0):
            loop = asyncio.get_running_loop()
            waiter = self._waiter = loop.create_future()
            timer = None if timeout is None else loop.call_later(timeout, _wake, waiter)
            try:
                await waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        if not self._messages:
            return None
        message, taken = self._messages.popleft()
        if taken is not None:
            taken.set()
        return message

    def _wake(self) -> None:
        if self._waiter is not None:
            _wake(self._waiter)

    # What gRPC takes the messages of a call from.

    def __aiter__(self) -> "Mailbox[M]":
        return self

    async def __anext__(self) -> M:
        message = await self.get()
        if message is None:
            raise StopAsyncIteration
        return message


# What `spawn` returns.
Background = asyncio.Task[Any]


def spawn(work: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> "asyncio.Task[T]":
    """Runs work in the background."""
    task = asyncio.get_running_loop().create_task(work(*arguments))
    _running.add(task)
    task.add_done_callback(_done)
    return task


def _done(task: "asyncio.Task[Any]") -> None:
    _running.discard(task)
    # sys.exit in a callback ends the loop and the program; asyncio would complain that nobody saw it in the task, too.
    # Looked for in private, since any other exception is to stay one that nobody has seen.
    if isinstance(getattr(task, "_exception", None), SystemExit):
        task.exception()


async def settle(work: Iterable[Background], seconds: float) -> None:
    """Waits for background work that was told to end, for at most so many seconds."""
    tasks = set(work)
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)


def close_at_exit(_arbiter: object) -> None:
    """Nothing: tasks end with their loop."""


async def finish(work: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
    """Runs work to its end, even when the caller is cancelled while it waits for it."""
    return await asyncio.shield(spawn(work, *arguments))


async def call_back(function: Callable[..., Any], *arguments: Any) -> None:
    """Calls a function of the user's; a coroutine function is awaited."""
    result = function(*arguments)
    if inspect.isawaitable(result):
        await result


async def blocking(function: Callable[..., T], *arguments: Any) -> T:
    """Calls a function that blocks, without holding up the loop."""
    return await asyncio.to_thread(function, *arguments)


async def sleep(seconds: float) -> None:
    """Lets time pass."""
    await asyncio.sleep(seconds)
