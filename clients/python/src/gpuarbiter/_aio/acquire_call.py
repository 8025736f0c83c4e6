"""An acquire under way over a line.

Law: its events are told once each and in order, to whoever reads or listens, until the last one or until it is given
up.
"""

import threading
from collections.abc import Callable
from typing import Any, Protocol

from gpuarbiter._aio import backend
from gpuarbiter._errors import ArbiterError, ArbiterUnavailable
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb

# What ends it; a detached one is over with its grant.
_LAST = frozenset({"ended", "declined"})

Told = pb.AcquireResponse | ArbiterError


class Line(Protocol):
    """What carries it."""

    def forget(self, call_id: int) -> bool:
        """Nothing more is told of a call; whether it was not over."""

    def send(self, kind: str, request: Any) -> None:
        """A call whose answer is of no interest."""


class AsyncAcquireCall:
    """An acquire under way: its events, to be read one by one, or told from `listen` on."""

    def __init__(self, line: Line, call_id: int, *, detached: bool) -> None:
        self._line = line
        self._call_id = call_id
        self._detached = detached
        self._lock = threading.RLock()  # a listener may give the call up while it is told of something
        self._told: backend.Mailbox[Told] = backend.Mailbox()
        self._listener: Callable[[Told], None] | None = None

    async def read(self) -> pb.AcquireResponse:
        """The next event.

        Raises:
            ArbiterError: the call failed, or its line broke.
        """
        told = await self._told.get()
        if isinstance(told, pb.AcquireResponse):
            return told
        raise told or ArbiterUnavailable("the call was given up")

    def listen(self, listener: Callable[[Told], None]) -> None:
        """From here on the listener is told, of what was not read yet, too; it must not block."""
        with self._lock:
            for each in self._told.take_all():
                listener(each)
            self._listener = listener

    def put(self, told: Told) -> None:
        """Tells of an event or a failure."""
        with self._lock:
            if self._listener is None:
                self._told.put(told)
            else:
                self._listener(told)

    def is_last(self, told: Told) -> bool:
        """Whether nothing follows."""
        if isinstance(told, ArbiterError):
            return True
        kind = told.WhichOneof("event")
        return kind in _LAST or (self._detached and kind == "granted")

    def forget(self) -> None:
        """Nothing more is told; the arbiter is not told of that."""
        self._line.forget(self._call_id)
        self._told.close()

    def cancel(self) -> None:
        """Leaves the queue or ends the lease, unless the call is over; nothing more is told."""
        if self._line.forget(self._call_id):
            self._line.send("cancel", pb.CancelAcquire(acquire_call_id=self._call_id))
        self._told.close()
