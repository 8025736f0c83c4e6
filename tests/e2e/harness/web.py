"""A web service in a process of its own, and clients that speak HTTP byte by byte."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from e2e.harness.waiting import PATIENCE_SECONDS

# Each is told of a socket that listens already, so that nobody has to ask when it does.
SERVERS = {
    "uvicorn": ("uvicorn", "--fd", "{fd}", "--no-access-log"),
    "hypercorn": ("hypercorn", "--bind", "fd://{fd}"),
}
_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


class Connection:
    """One connection with one request on it."""

    def __init__(self, made: socket.socket) -> None:
        self._socket = made
        self._got = b""

    async def head(self) -> Answer:
        """The answer up to its body."""
        while _END not in self._got:
            assert await self._more(), f"the connection ended after {self._got!r}"
        head, self._got = self._got.split(_END, 1)
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        return Answer(int(first.split()[1]), headers, b"")

    async def answer(self) -> Answer:
        """All of it: the server closes the connection behind it."""
        head = await self.head()
        while await self._more():
            pass
        self.hang_up()
        chunked = head.headers.get("transfer-encoding") == "chunked"
        body = b"".join(self._got.split(b"\r\n")[1::2]) if chunked else self._got
        return Answer(head.status, head.headers, body)

    async def read(self, size: int) -> bytes:
        """So many bytes at least."""
        while len(self._got) < size:
            assert await self._more(), f"the connection ended after {self._got!r}"
        return self._got

    def hang_up(self) -> None:
        """Goes without a word."""
        self._socket.close()

    async def _more(self) -> bool:
        piece = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self._socket, 65536), PATIENCE_SECONDS)
        self._got += piece
        return bool(piece)


class WebService:
    """A running service: WebService("uvicorn", "e2e.harness.web_apps:app", env=…)."""

    def __init__(self, server: str, app: str, *, env: Mapping[str, str], cwd: str) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._address = self._socket.getsockname()
        self._connections: list[Connection] = []
        fd = self._socket.fileno()
        command = [part.format(fd=fd) for part in SERVERS[server]]
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command, app],
            env=dict(env) | {"GRPC_VERBOSITY": "NONE"},
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=(fd,),
        )

    async def ask(
        self, path: str, *, method: str = "GET", body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Connection:
        """Sends a request."""
        made = socket.socket()
        made.setblocking(False)
        connection = Connection(made)
        self._connections.append(connection)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(made, self._address)
        lines = {"Host": "test", "Connection": "close", "Content-Length": str(len(body)), **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        await loop.sock_sendall(made, f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        return connection

    async def get(self, path: str, **more: Any) -> Answer:
        """A request and its answer."""
        return await (await self.ask(path, **more)).answer()

    async def talk(self, path: str) -> tuple[Connection, Answer]:
        """Opens a WebSocket, and what is answered to that."""
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        connection = await self.ask(path, headers=upgrade)
        return connection, await connection.head()

    def stop(self) -> tuple[int, str]:
        """Ends it as an operator does; its exit code, and all that it said."""
        for each in self._connections:
            each.hang_up()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            output, _ = self._process.communicate(timeout=2 * PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            output, _ = self._process.communicate()
        self._socket.close()
        return self._process.returncode, output


def environment(target: str, **more: str) -> dict[str, str]:
    """That of a service beside an arbiter."""
    return dict(os.environ) | {"GPU_ARBITER_ADDRESS": target, **more}
