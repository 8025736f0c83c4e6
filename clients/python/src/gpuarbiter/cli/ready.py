"""Waits until a command is ready, and then shares its GPU.

Law: over HTTP nothing but a 2xx is ready, and nothing is in between: no redirect, no proxy; of tcp: and unix: it is
enough that somebody answers the call. A lease that cannot be shared stays exclusive, and the command goes on.
"""

import http.client
import queue
import socket
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from gpuarbiter._errors import ArbiterError, ResizeRefused
from gpuarbiter.cli.news import NotReady, Ready

if TYPE_CHECKING:
    from gpuarbiter import Lease

POLL_SECONDS = 0.25
_ANSWER_SECONDS = 2.0
# A reading that shows the peak may take a moment.
_SHARE_SECONDS = 5.0


def problem_of(url: str) -> str:
    """Why the URL (http, https, tcp, unix) is not ready; empty when it is."""
    parts = urlsplit(url)
    try:
        if parts.scheme in {"http", "https"}:
            return _http_problem(parts)
        with _call(parts):
            return ""
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {error or type(error).__name__}"


def _http_problem(parts: SplitResult) -> str:
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        status = connection.getresponse().status
    finally:
        connection.close()
    return "" if status // 100 == 2 else f"it answers {status}"  # noqa: PLR2004 -- 2xx


def _call(parts: SplitResult) -> socket.socket:
    if parts.scheme == "tcp":
        return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=_ANSWER_SECONDS)
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        line.settimeout(_ANSWER_SECONDS)
        line.connect(parts.path)
    except OSError:
        line.close()
        raise
    return line


class Waiting:
    """Asks again and again in a thread of its own, and puts Ready or NotReady into the events."""

    def __init__(
        self,
        url: str,
        lease: "Lease",
        memory_bytes: int | None,
        bound: timedelta,
        events: "queue.SimpleQueue[object]",
    ) -> None:
        self._url = url
        self._lease = lease
        self._memory_bytes = memory_bytes
        self._bound_seconds = bound.total_seconds()
        self._events = events
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="gpu-arbiter-ready")

    def start(self) -> None:
        """From now on."""
        self._thread.start()

    def stop(self) -> None:
        """The command has ended: nobody wants to know any more."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        started = time.monotonic()
        while problem := problem_of(self._url):
            waited = time.monotonic() - started
            if self._bound_seconds and waited >= self._bound_seconds:
                self._events.put(NotReady(waited, problem))
                return
            if self._over.wait(POLL_SECONDS):
                return
        waited = time.monotonic() - started
        refused = self._share()
        if not self._over.is_set():
            committed = sum(gpu.committed_bytes for gpu in self._lease.gpus)
            self._events.put(Ready(waited, committed, refused))

    def _share(self) -> str:
        """Why the GPU is not shared; empty when it is."""
        deadline = time.monotonic() + _SHARE_SECONDS
        while not self._over.is_set():
            try:
                self._lease.resize(memory=self._memory_bytes, shared=True)
            except ResizeRefused as error:
                why = str(error)
            except ArbiterError as error:
                why = str(error)
                if not error.transient:
                    return why
            else:
                return ""
            if time.monotonic() >= deadline:
                return why
            self._over.wait(POLL_SECONDS)
        return "the command has ended"
