"""Where the two worlds differ, for threads: channels, streams, waiting, background work.

Law: `_aio/backend.py` has the same names with the same meaning, so that everything else is written once.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import grpc

from gpuarbiter import _status

RpcError = grpc.RpcError

T = TypeVar("T")
M = TypeVar("M")


def open_channel(
    target: str, options: Sequence[tuple[str, Any]], credentials: grpc.ChannelCredentials | None
) -> grpc.Channel:
    """A channel; any thread may use it."""
    if credentials is None:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, credentials, options=options)


class Stream(Generic[M]):
    """A stream of messages from the arbiter, under way."""

    def __init__(self, call: Any, target: str) -> None:
        self._call = call
        self._target = target
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
        self._call.cancel()


# A flag that can be waited for.
Event = threading.Event


def spawn(work: Callable[..., Any], *arguments: Any) -> threading.Thread:
    """Runs work in the background; it does not keep the program alive."""
    thread = threading.Thread(target=work, args=arguments, daemon=True, name=f"gpuarbiter-{work.__name__.strip('_')}")
    thread.start()
    return thread


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
