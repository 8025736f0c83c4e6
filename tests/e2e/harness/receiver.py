"""A receiver of POSTs: answers as it is told to, and keeps what it was sent."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass(frozen=True)
class Posted:
    """One request."""

    path: str
    headers: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        """As JSON."""
        found: dict[str, Any] = json.loads(self.raw)
        return found


class Receiver:
    """Listens on a free port of this machine.

    statuses: of the first answers; after those it answers 200. silent: it takes requests and never answers.
    """

    def __init__(self, *statuses: int, headers: Mapping[str, str] | None = None, silent: bool = False) -> None:
        self.posted: list[Posted] = []
        self._over = threading.Event()
        left = list(statuses)
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.posted.append(Posted(self.path, dict(self.headers.items()), raw))
                if silent:
                    receiver._over.wait()
                    self.close_connection = True
                    return
                self.send_response(left.pop(0) if left else 200)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Host and port."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def close(self) -> None:
        """Listens no more."""
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
