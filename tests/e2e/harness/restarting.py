"""An arbiter that is killed and comes back at the same address, with the same state; and who watches its leases."""

import asyncio
import inspect
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from fakes.faults import Faults
from fakes.nvml.library import compiler
from fakes.polling import async_until
from gpuarbiter import Arbiter, AsyncArbiter
from support.process import ISOLATED, Arbiterd, environment

_INTERVAL_SECONDS = 0.005
# Both forms of the library, for tests that drive both through `call`.
FORMS: dict[str, type[Any]] = {"asynchronous": AsyncArbiter, "synchronous": Arbiter}


class Restarting:
    """One arbiter after the other, at one address: the UUIDs of simulated GPUs come of it, too."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self._folder = folder
        # Where there is no compiler, it can only be killed from outside.
        self.faults = Faults(folder) if compiler() else None
        self._settings = settings
        self._starts: list[Arbiterd] = []
        self._address = f"127.0.0.1:{_free_port()}"
        self._state = "state"
        # On the clock of time.monotonic: the last kill, and when it first answered again.
        self.killed_at = 0.0
        self.back_at = 0.0

    @property
    def grpc(self) -> str:
        """Where it is, or will be again."""
        return self._address

    @property
    def output(self) -> str:
        """All that it has said, over all starts."""
        return "".join(each.output for each in self._starts)

    async def start(self, *settings: str, state: str = "") -> None:
        """Starts, on its state or from now on on another; returns once it answers."""
        self._state = state or self._state
        wanted = (*self._settings, f"listen.grpc={self._address}", *settings)
        flags = [part for setting in wanted for part in ("--set", setting)]
        more = {"XDG_STATE_HOME": str(self._folder / self._state)} | (self.faults.env if self.faults else {})
        env = environment(self._folder, **more)
        self._starts.append(Arbiterd("serve", *ISOLATED, *flags, folder=self._folder, env=env))
        await asyncio.to_thread(self._starts[-1].wait_until_ready)
        self.back_at = time.monotonic()

    async def kill(self) -> None:
        """SIGKILL; returns once it is gone."""
        self._starts[-1].process.kill()
        self.killed_at = time.monotonic()
        await asyncio.to_thread(self._starts[-1].wait)

    async def dies(self) -> None:
        """Waits until it has died of what was planned by its faults."""
        await asyncio.to_thread(self._starts[-1].wait)
        assert self.faults is not None
        assert self.faults.killed_at is not None, self.output
        self.killed_at = self.faults.killed_at
        self.faults.disarm()

    async def restart(self, *settings: str, state: str = "") -> None:
        """Kills it and starts it again."""
        await self.kill()
        await self.start(*settings, state=state)

    def stop(self) -> None:
        """Ends it, whatever state it is in."""
        for each in self._starts:
            each.stop()


def _free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


async def call(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Calls either form of the library; the synchronous one on a thread."""
    if inspect.iscoroutinefunction(function):
        return await function(*arguments, **options)
    return await asyncio.to_thread(function, *arguments, **options)


class Diary:
    """What holders see of their leases, looked at all the time: held, uncertain, lost, and since when."""

    def __init__(self) -> None:
        self.leases: dict[str, Any] = {}
        self._pages: dict[str, list[tuple[str, float]]] = {}

    def follow(self, name: str, lease: Any) -> Any:
        """From here on, this lease too."""
        self.leases[name] = lease
        self._pages[name] = []
        return lease

    def seen(self, name: str) -> list[str]:
        """All states of a lease so far, in their order."""
        return [state for state, _ in self._pages[name]]

    def since(self, name: str) -> float:
        """When the state that it is in now was first seen."""
        return self._pages[name][-1][1]

    async def all(self, state: str, names: Iterable[str] = ()) -> None:
        """Waits until each of these leases (of all) is in this state."""
        wanted = list(names) or list(self.leases)
        try:
            await async_until(lambda: all(self.seen(name)[-1:] == [state] for name in wanted))
        except TimeoutError:
            seen = {name: (self.seen(name), self.leases[name].lost_reason) for name in wanted}
            raise AssertionError(f"not all came to be {state}: {seen}") from None

    async def _write(self) -> None:
        while True:
            now = time.monotonic()
            for name, lease in self.leases.items():
                state = "lost" if lease.lost else "uncertain" if lease.uncertain else "held"
                if self.seen(name)[-1:] != [state]:
                    self._pages[name].append((state, now))
            await asyncio.sleep(_INTERVAL_SECONDS)

    @classmethod
    @asynccontextmanager
    async def kept(cls) -> AsyncIterator["Diary"]:
        """A diary that is written until the end of the block."""
        diary = cls()
        writing = asyncio.ensure_future(diary._write())
        try:
            yield diary
        finally:
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await writing
