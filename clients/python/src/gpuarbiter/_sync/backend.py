"""Where the two worlds differ, for threads: channels, streams, waiting, background work.

Law: `_aio/backend.py` has the same names with the same meaning, so that everything else is written once.
"""

import atexit
import contextlib
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import grpc
import grpc.experimental

from gpuarbiter import _forks, _status

RpcError = grpc.RpcError

T = TypeVar("T")
M = TypeVar("M")
L = TypeVar("L")

# A piece of work of the user's, with the lease and without.
GpuWork = Callable[[L], T]
CpuWork = Callable[[], T]


# Who reads a stream handles its events. Otherwise a thread of gRPC's does, which can be in the middle of
# one, with the call's lock taken, when the interpreter ends: gRPC's destructors then wait for that lock
# for ever, and the program hangs at its exit.
_ONE_THREAD = (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1)


def open_channel(
    target: str, options: Sequence[tuple[str, Any]], credentials: grpc.ChannelCredentials | None
) -> grpc.Channel:
    """A channel; any thread may use it."""
    options = [*options, _ONE_THREAD]
    if credentials is None:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, credentials, options=options)


def refuse_after_fork() -> None:
    """Nothing: a forked child can open a channel of its own."""


class Stream(Generic[M]):
    """A stream of messages from the arbiter, under way."""

    def __init__(self, call: Any, target: str) -> None:
        self._call = call
        self._target = target
        self._anothers = False
        self._cancelled = False

    def read(self) -> M | None:
        """The next message; None at the end, and when the stream was cancelled from here.

        Raises:
            ArbiterError: the stream ended with a status other than OK.
        """
        try:
            message: M = next(self._call)
        except StopIteration:
            return None
        except RpcError as failure:
            if self._cancelled:
                return None
            raise _status.from_rpc(failure, self._target) from failure
        return message

    def cancel(self) -> None:
        """Ends the stream; a reader gets None. Safe from anywhere, and more than once."""
        self._cancelled = True
        if not self._anothers:
            self._call.cancel()

    def forked(self) -> None:
        """In a child: the call is the parent's, and its locks may be taken by threads that are not here."""
        _forks.leave_behind(self._call)
        self._anothers = True


# A flag that can be waited for.
Event = threading.Event

_CLOSED: Any = object()
# What our own threads are called, in front.
_OURS = "gpuarbiter-"


class Mailbox(Generic[M]):
    """Messages on their way to one reader; closed, it gives out what is left, and then None."""

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[tuple[M, Event | None]] = queue.SimpleQueue()

    def put(self, message: M, taken: Event | None = None) -> None:
        """Hands a message in; `taken` is raised once the reader has it."""
        self._messages.put((message, taken))

    def close(self) -> None:
        """Nothing more comes."""
        self._messages.put((_CLOSED, None))

    def take_all(self) -> list[M]:
        """What is there."""
        taken: list[M] = []
        with contextlib.suppress(queue.Empty):
            while (message := self._messages.get_nowait()[0]) is not _CLOSED:
                taken.append(message)
            self.close()
        return taken

    def get(self, timeout: float | None = None) -> M | None:
        """The next message, waited for; None when none comes any more, or within so many seconds."""
        message = self._take(timeout)
        _leave_at_exit()
        return message

    def _take(self, timeout: float | None = None) -> M | None:
        try:
            message, taken = self._messages.get(timeout=timeout)
        except queue.Empty:
            return None
        if message is _CLOSED:
            self.close()  # for whoever looks again
            return None
        if taken is not None:
            taken.set()
        return message

    # What gRPC takes the messages of a call from.

    def __iter__(self) -> "Mailbox[M]":
        return self

    def __next__(self) -> M:
        message = self._take()
        if message is None:
            raise StopIteration
        return message


# What `spawn` returns.
Background = threading.Thread


def spawn(work: Callable[..., Any], *arguments: Any) -> threading.Thread:
    """Runs work in the background; it does not keep the program alive."""
    thread = threading.Thread(target=work, args=arguments, daemon=True, name=_OURS + work.__name__.strip("_"))
    thread.start()
    return thread


def settle(work: Iterable[Background], seconds: float) -> None:
    """Waits for background work that was told to end, for at most so many seconds."""
    deadline = time.monotonic() + seconds
    for thread in work:
        if thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))


_open: weakref.WeakSet[Any] = weakref.WeakSet()


def close_at_exit(arbiter: Any) -> None:
    """Has an Arbiter that is still open when the program ends closed then.

    It gives back what was forgotten, and it ends the threads: one that is stopped in the middle of gRPC, as
    the interpreter does with what still runs at its end, can keep the program from ending at all.
    """
    _open.add(arbiter)


# The program has come to its end.
_ending = threading.Event()


def _leave_at_exit() -> None:
    """Ends a daemon thread of the program that still waits at its end: it sees no more of it than if it were killed."""
    thread = threading.current_thread()
    if _ending.is_set() and thread.daemon and not thread.name.startswith(_OURS):
        raise SystemExit


@atexit.register
def _close_all() -> None:
    _ending.set()
    for arbiter in tuple(_open):
        with contextlib.suppress(Exception):
            arbiter.close()


def finish(work: Callable[..., T], *arguments: Any) -> T:
    """Runs work to its end."""
    return work(*arguments)


def call_back(function: Callable[..., Any], *arguments: Any) -> None:
    """Calls a function of the user's."""
    function(*arguments)


def blocking(function: Callable[..., T], *arguments: Any) -> T:
    """Calls a function that blocks, which in a thread is nothing special."""
    return function(*arguments)


def sleep(seconds: float) -> None:
    """Lets time pass."""
    time.sleep(seconds)
