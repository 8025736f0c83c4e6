"""The server's side of one ASGI request, in the hands of a test: what the client sends, and when it goes."""

import asyncio
import json
from typing import Any

from fakes.polling import async_until

HTTP: dict[str, Any] = {"type": "http", "method": "POST", "path": "/work", "root_path": "", "headers": []}
WEBSOCKET: dict[str, Any] = {"type": "websocket", "path": "/work", "root_path": "", "headers": [], "extensions": {}}


class Exchange:
    """One request to an application. Its body has arrived, unless the test says otherwise."""

    def __init__(self, app: Any, scope: dict[str, Any] = HTTP, *, body: bool = True, **more: Any) -> None:
        self.scope: dict[str, Any] = {**scope, "state": {}, **more}
        self.sent: list[Any] = []
        # Messages that the application's side has not taken.
        self.inbound: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        if self.scope["type"] == "websocket":
            self.says("websocket.connect")
        elif body:
            self.says("http.request", body=b"", more_body=False)
        self.task = asyncio.create_task(app(self.scope, self.inbound.get, self._send))

    def says(self, kind: str, **fields: Any) -> None:
        """A message from the client's side."""
        self.inbound.put_nowait({"type": kind, **fields})

    def hangs_up(self) -> None:
        """The client goes."""
        self.says(f"{self.scope['type']}.disconnect")

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    async def heard(self, kind: str) -> Any:
        """The first message of this kind that was sent, once it is there."""
        await async_until(lambda: [each for each in self.sent if each["type"] == kind], f"for {kind}")
        return next(each for each in self.sent if each["type"] == kind)

    async def over(self) -> "Exchange":
        """Once the application has returned, or raised, which is raised here."""
        await asyncio.wait_for(self.task, 10)
        return self

    @property
    def status(self) -> int:
        """The answer's status."""
        (start,) = [each for each in self.sent if each["type"].endswith(".response.start")]
        status: int = start["status"]
        return status

    @property
    def headers(self) -> dict[str, str]:
        """The answer's headers."""
        (start,) = [each for each in self.sent if each["type"].endswith(".response.start")]
        return {name.decode(): value.decode() for name, value in start["headers"]}

    @property
    def body(self) -> bytes:
        """The answer's body, as far as it was sent."""
        return b"".join(each.get("body", b"") for each in self.sent if each["type"].endswith(".response.body"))

    @property
    def problem(self) -> Any:
        """The body of a refusal."""
        assert self.headers["content-type"] == "application/problem+json"
        assert self.headers["content-length"] == str(len(self.body))
        return json.loads(self.body)


async def respond(send: Any, body: bytes = b"done", status: int = 200, *, more: bool = False) -> None:
    """A small answer, or the beginning of a longer one."""
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body, "more_body": more})
