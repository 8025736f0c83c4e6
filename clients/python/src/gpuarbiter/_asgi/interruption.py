"""Taking the task that serves a request out of what it is doing.

Law: the task is interrupted only inside the block, and goes on behind it as if nobody had cancelled it; who else
cancels it (the server, a time limit) is not kept from it. The way of asyncio.timeout.
"""

import asyncio
from types import TracebackType
from typing import Literal, Self

Cause = Literal["gone", "lost"]


class Interruption:
    """A block of the current task that others can end."""

    def __init__(self) -> None:
        self.cause: Cause | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelled_before = 0

    def interrupt(self, cause: Cause) -> None:
        """Ends the block, if the task is in it; a second cause is one too many."""
        if self._task is not None and self.cause is None:
            self.cause = cause
            self._task.cancel()

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelled_before = self._task.cancelling()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        task, self._task = self._task, None
        assert task is not None
        return (
            self.cause is not None
            and task.uncancel() <= self._cancelled_before
            and isinstance(error, asyncio.CancelledError)
        )
