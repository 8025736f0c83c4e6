"""An exporter that shows what a DCGM exporter would: a text that a Prometheus scrapes."""

import contextlib
import threading
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, Self

_KIND = "text/plain; version=0.0.4; charset=utf-8"


class DcgmGpu(NamedTuple):
    """A GPU with the labels that it has, and its figures by the name behind DCGM_FI_DEV_; memory is MiB."""

    labels: Mapping[str, str]
    figures: Mapping[str, float]


class DcgmExporter:
    """Serves these GPUs on a free port, at `address`."""

    def __init__(self, gpus: Iterable[DcgmGpu]) -> None:
        page = "".join(_page(list(gpus))).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                # Who scrapes may have ended.
                with contextlib.suppress(ConnectionError):
                    self.send_response(200)
                    self.send_header("content-type", _KIND)
                    self.end_headers()
                    self.wfile.write(page)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 -- its name there
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _page(gpus: list[DcgmGpu]) -> Iterable[str]:
    for name in sorted({name for gpu in gpus for name in gpu.figures}):
        yield f"# TYPE DCGM_FI_DEV_{name} gauge\n"
        for gpu in gpus:
            if name in gpu.figures:
                labels = ",".join(f'{label}="{value}"' for label, value in gpu.labels.items())
                yield f"DCGM_FI_DEV_{name}{{{labels}}} {gpu.figures[name]:g}\n"
