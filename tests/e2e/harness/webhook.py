"""A receiver for Alertmanager's webhooks: keeps every alert that it is told of, with the path that it came to."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass(frozen=True)
class Notice:
    """One alert of one message."""

    path: str
    status: str
    labels: dict[str, str]
    annotations: dict[str, str]


class Webhook:
    """Listens on a free port of this machine."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.notices += [
                    Notice(self.path, each["status"], each["labels"], each["annotations"]) for each in message["alerts"]
                ]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Host and port."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def told(self, status: str, labels: Mapping[str, str]) -> list[Notice]:
        """What was told to be firing or resolved with these labels among others."""
        return [each for each in self.notices if each.status == status and labels.items() <= each.labels.items()]

    def close(self) -> None:
        """Listens no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
