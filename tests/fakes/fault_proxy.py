"""A line to the arbiter that can go bad: a TCP proxy on loopback, for a server that listens there.

with FaultProxy(arbiter.grpc) as proxy:
    client = connect(proxy.address)
    proxy.become(Fault(delay=0.1))      # for every connection; with existing=False for new ones only
    proxy.cut(); proxy.reset()          # FIN, RST
    proxy.refuse(); proxy.heal(after=1) # nobody listens; all is well again, for new connections at least

It runs on a thread of its own, so that clients of every kind can stand before it. What a method says is so by the
time that it returns.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

_CHUNK_BYTES = 64 * 1024
# A slow line carries its bytes in portions, so many times a second.
_PORTIONS_PER_SECOND = 50
_PATIENCE_SECONDS = 10.0

T = TypeVar("T")


@dataclass(frozen=True)
class Fault:
    """What becomes of the bytes of a connection; by default they arrive."""

    # Seconds that they are on their way, in each direction.
    delay: float = 0.0
    bytes_per_second: float | None = None
    # They never arrive, nor does the end of the connection: to each side the other one is just silent. A connection
    # that has lost bytes in this way can never be whole again, whatever the proxy becomes.
    black_hole: bool = False
    # What the client sends goes to the server over a second connection, too, whose answers nobody reads.
    duplicate: bool = False
    # So many bytes of the client (up) or the server (down) are carried, and then the connection is cut.
    cut_after_up: int | None = None
    cut_after_down: int | None = None
    # It is cut with RST, not FIN.
    reset: bool = False


@dataclass(eq=False)
class Link:
    """One connection of a client, and what was carried over it."""

    client: asyncio.StreamWriter
    fault: Fault
    up: int = 0
    down: int = 0
    lost: bool = False
    server: asyncio.StreamWriter | None = None
    shadow: asyncio.StreamWriter | None = None
    tasks: list["asyncio.Task[None]"] = field(default_factory=list)

    @property
    def writers(self) -> list[asyncio.StreamWriter]:
        return [writer for writer in (self.client, self.server, self.shadow) if writer is not None]

    def end(self, *, reset: bool) -> None:
        """Ends both connections; what was written is still sent, except by a reset."""
        for writer in self.writers:
            if reset:
                _reset(writer)
            else:
                writer.close()


class FaultProxy:
    """A proxy before `target` (host:port)."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._fault = Fault()
        self._links: list[Link] = []
        self._server: asyncio.Server | None = None
        self._healing: asyncio.Task[None] | None = None
        # Holds the port while nobody listens on it, so that nobody else gets it.
        self._place = _bound(("127.0.0.1", 0))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    @property
    def address(self) -> str:
        """Where clients are to connect."""
        host, port = self._place.getsockname()
        return f"{host}:{port}"

    @property
    def carried(self) -> list[tuple[int, int]]:
        """Bytes that went up and down, for each connection so far."""
        return [(link.up, link.down) for link in self._links]

    # -- what can happen to it --

    def become(self, fault: Fault, *, existing: bool = True) -> None:
        """New connections have this fault from now on, and with `existing` those that stand already."""
        self._do(self._become(fault, existing=existing))

    def cut(self) -> None:
        """Ends every connection that stands, with FIN."""
        self._do(self._end_all(reset=False))

    def reset(self) -> None:
        """Ends every connection that stands, with RST."""
        self._do(self._end_all(reset=True))

    def refuse(self) -> None:
        """New connections are refused; those that stand go on."""
        self._do(self._refuse())

    def heal(self, *, after: float = 0.0) -> None:
        """Connections are accepted and bytes arrive: now, or so many seconds after this has returned."""
        if after:
            self._loop.call_soon_threadsafe(self._loop.call_later, after, self._heal_soon)
        else:
            self._do(self._heal())

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._accept())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE_SECONDS)
        self._loop.close()
        self._place.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE_SECONDS)

    # -- on the proxy's own loop --

    async def _become(self, fault: Fault, *, existing: bool) -> None:
        self._fault = fault
        if existing:
            for link in self._links:
                link.fault = fault
                link.lost = link.lost or fault.black_hole

    async def _heal(self) -> None:
        await self._become(Fault(), existing=True)
        await self._accept()

    def _heal_soon(self) -> None:
        self._healing = self._loop.create_task(self._heal())

    async def _end_all(self, *, reset: bool) -> None:
        for link in self._links:
            link.end(reset=reset)

    async def _accept(self) -> None:
        if self._server is None:
            listener = _bound(self._place.getsockname())
            self._server = await asyncio.start_server(self._welcome, sock=listener)

    async def _refuse(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            # Whoever was let in just now must be a link before the server closes: asyncio would lose the socket.
            for listener in server.sockets:
                self._loop.remove_reader(listener.fileno())
            await _turns()
            server.close()

    async def _close(self) -> None:
        await self._refuse()
        for link in self._links:
            for task in link.tasks:
                task.cancel()
            link.end(reset=True)
        await asyncio.gather(*(task for link in self._links for task in link.tasks), return_exceptions=True)
        # Their transports close in the next turn.
        await _turns()

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(writer, self._fault, lost=self._fault.black_hole)
        self._links.append(link)
        link.tasks.append(asyncio.create_task(self._carry(link, reader)))

    async def _carry(self, link: Link, reader: asyncio.StreamReader) -> None:
        try:
            back, link.server = await asyncio.open_connection(*self._target)
        except OSError:
            link.end(reset=True)
            return
        down = asyncio.create_task(self._pump(link, back, upwards=False))
        link.tasks.append(down)
        await self._pump(link, reader, upwards=True)
        await down
        if not link.lost:
            link.end(reset=False)

    async def _pump(self, link: Link, reader: asyncio.StreamReader, *, upwards: bool) -> None:
        """Carries one direction to its end."""
        # Whatever ends a connection early is a fault that was asked for, or the doing of one of the two sides.
        with contextlib.suppress(OSError):
            while not _used_up(link, upwards=upwards) and (data := await reader.read(_CHUNK_BYTES)):
                if link.fault.delay:
                    await asyncio.sleep(link.fault.delay)
                if not link.lost:
                    await self._pass_on(link, data, upwards=upwards)
        if _used_up(link, upwards=upwards):
            link.end(reset=link.fault.reset)
        elif not link.lost:
            _end_of(link.server if upwards else link.client)

    async def _pass_on(self, link: Link, data: bytes, *, upwards: bool) -> None:
        left = _left(link, upwards=upwards)
        data = data if left is None else data[:left]
        while data and not link.lost:
            rate = link.fault.bytes_per_second
            size = len(data) if rate is None else max(1, round(rate / _PORTIONS_PER_SECOND))
            portion, data = data[:size], data[size:]
            if rate is not None:
                await asyncio.sleep(len(portion) / rate)
            if upwards and link.fault.duplicate:
                await self._to_shadow(link, portion)
            writer = link.server if upwards else link.client
            assert writer is not None
            if upwards:
                link.up += len(portion)
            else:
                link.down += len(portion)
            writer.write(portion)
            await writer.drain()

    async def _to_shadow(self, link: Link, data: bytes) -> None:
        with contextlib.suppress(OSError):
            if link.shadow is None:
                answers, link.shadow = await asyncio.open_connection(*self._target)
                link.tasks.append(asyncio.create_task(_throw_away(answers)))
            if not link.shadow.is_closing():
                link.shadow.write(data)


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def _bound(address: tuple[str, int]) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(address)
    return made


def _left(link: Link, *, upwards: bool) -> int | None:
    """Bytes that may still pass; None: any number."""
    limit = link.fault.cut_after_up if upwards else link.fault.cut_after_down
    return None if limit is None else max(0, limit - (link.up if upwards else link.down))


def _used_up(link: Link, *, upwards: bool) -> bool:
    return _left(link, upwards=upwards) == 0


def _reset(writer: asyncio.StreamWriter) -> None:
    # Closed without lingering, a socket says RST.
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _end_of(writer: asyncio.StreamWriter | None) -> None:
    """One side has nothing more to say."""
    if writer is not None and not writer.is_closing():
        with contextlib.suppress(OSError):
            writer.write_eof()


async def _throw_away(answers: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while await answers.read(_CHUNK_BYTES):
            pass
