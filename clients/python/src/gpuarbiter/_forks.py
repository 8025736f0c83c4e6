"""After a fork: the child starts anew, and leaves alone what is its parent's.

Law: nothing of the parent's is used, closed or destroyed in the child. Both share the socket, so that one word written
from there, be it by a destructor when the interpreter ends, would end the parent's calls; and gRPC's locks may be taken
by threads that only the parent has.
"""

import os
import weakref
from typing import Any, Protocol


class Forks(Protocol):
    """What has something to leave behind."""

    def forked(self) -> None:
        """Called in the child: no lock may be taken, since a thread that is not here may hold it."""


_watched: "weakref.WeakSet[Any]" = weakref.WeakSet()
_aio_used = False
_aio_lost = False


def watch(each: Forks) -> None:
    """Has it told in every child, for as long as it lives."""
    _watched.add(each)


def leave_behind(*things: object) -> None:
    """Keeps them from ever being destroyed."""
    import ctypes

    for each in things:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))


def use_aio() -> None:
    """Called before gRPC's asyncio side is used.

    Raises:
        RuntimeError: the process that this one was forked from has used it already. Its only poller is a thread of
            that process, and every call would wait for ever.
    """
    global _aio_used  # noqa: PLW0603 -- the state of the process
    if _aio_lost:
        raise RuntimeError(
            "an AsyncArbiter cannot be used in a forked child of a process that used one: "
            "use Arbiter there, or start the child with the method spawn or forkserver"
        )
    _aio_used = True


def _in_child() -> None:
    global _aio_lost  # noqa: PLW0603 -- the state of the process
    _aio_lost = _aio_used
    for each in tuple(_watched):
        each.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
