"""A socket on which the kernel, not the caller, says who is calling.

Law: a token stands for the process that fetched it, and only that process was ever told it. gRPC hides the
credentials of a Unix socket, so a holder connects here first, reads one line, and passes it on as its `attestation`.

Protocol: connect; read one line, the token; the server closes. A caller whose process cannot be seen from the arbiter's
PID namespace gets no line, just the end of the stream. Nothing is ever read from the caller.

Who may connect is decided by the directory (mode 0700), as for the gRPC socket beside it.
"""

import asyncio
import contextlib
import errno
import logging
import os
import secrets
import select
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from gpuarbiter_server.api.sockets import remove_leftover
from gpuarbiter_server.core.model import ProcessId
from gpuarbiter_server.gpu.processes import identify, is_alive

log = logging.getLogger(__name__)

MAX_TOKENS = 4096
# How many of the oldest entries are looked at for dead processes before a living one is forgotten.
PRUNE_STEP = 256
BACKLOG = 128
# Connections taken in one turn of the loop, so that a flood of them cannot hold it.
ACCEPT_STEP = 32
PAUSE_SECONDS = 0.1
# struct ucred: pid, uid, gid (unix(7)).
CREDENTIALS = struct.Struct("iII")
# asm-generic/socket.h; since Linux 6.5. The socket module does not name it yet.
SO_PEERPIDFD = 77


class AttestationServer:
    """Hands out tokens at `path`, and says later whose they are. Belongs to the event loop's thread."""

    def __init__(
        self,
        path: Path,
        *,
        max_tokens: int = MAX_TOKENS,
        find_process: Callable[[int], ProcessId | None] = identify,
    ) -> None:
        self._path = path
        self._max_tokens = max_tokens
        self._identify = find_process
        self._tokens: dict[ProcessId, str] = {}
        self._processes: dict[str, ProcessId] = {}
        self._listener: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def resolve(self, token: str) -> ProcessId | None:
        """Whose token it is; None for one that was never given out, or was forgotten since.

        The process may have ended meanwhile; whoever watches it finds out.
        """
        return self._processes.get(token)

    async def start(self) -> None:
        """Listens, in place of an earlier arbiter that left its socket behind.

        Raises:
            OSError: the socket cannot be made; somebody answers at it already; or this platform has no such sockets.
        """
        if not hasattr(socket, "SO_PEERCRED"):
            message = "this platform's sockets do not tell who is calling"
            raise OSError(message)
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_leftover(self._path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            # The mode has to be right from the start: there is no chmod early enough.
            mask = os.umask(0o077)
            try:
                listener.bind(str(self._path))
            finally:
                os.umask(mask)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._listen(listener)

    async def close(self) -> None:
        """Stops listening and forgets every token. May be called twice, or without a start."""
        listener, self._listener = self._listener, None
        if listener is None or self._loop is None:
            return
        self._loop.remove_reader(listener.fileno())
        listener.close()
        self._path.unlink(missing_ok=True)
        self._tokens.clear()
        self._processes.clear()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPT_STEP):
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of file descriptors, most likely: the caller waits in the backlog meanwhile.
                log.warning("cannot take a caller at %s: %s", self._path, error)
                self._pause(listener)
                return
            with connection:
                self._answer(connection)

    def _pause(self, listener: socket.socket) -> None:
        """Lets callers wait for a moment; the loop would ask again at once, and spin."""
        if self._loop is not None:
            self._loop.remove_reader(listener.fileno())
            self._loop.call_later(PAUSE_SECONDS, self._listen, listener)

    def _listen(self, listener: socket.socket) -> None:
        if self._loop is not None and listener is self._listener:
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def _answer(self, connection: socket.socket) -> None:
        """Writes one line: it always fits into the buffer of a fresh socket, so that nobody is waited for."""
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        pid, uid, _ = CREDENTIALS.unpack(raw)
        process = self._prove(connection, pid)
        if process is None:
            log.warning("a caller of user %d at %s is not to be seen from here (pid %d)", uid, self._path, pid)
            return
        connection.setblocking(False)
        # A caller that has hung up already needs no token.
        with contextlib.suppress(OSError):
            connection.send(self._token(process).encode() + b"\n")

    def _prove(self, connection: socket.socket, pid: int) -> ProcessId | None:
        """The process at the other end. The pid is as of its connect(), and may have passed to another since.

        While the kernel's handle of the very peer says that it lives, its pid is its own. Kernels
        without such a handle leave a gap: a peer that died within the moment between connect and accept.
        """
        process = self._identify(pid) if pid > 0 else None
        if process is None or _peer_is_dead(connection) or self._identify(pid) != process:
            return None
        return process

    def _token(self, process: ProcessId) -> str:
        token = self._tokens.get(process)
        if token is None:
            if len(self._tokens) >= self._max_tokens:
                self._make_room()
            token = self._tokens[process] = secrets.token_urlsafe(32)
            self._processes[token] = process
        return token

    def _make_room(self) -> None:
        oldest = list(self._tokens)[:PRUNE_STEP]
        dead = [process for process in oldest if not is_alive(process)]
        for process in dead or oldest[:1]:
            del self._processes[self._tokens.pop(process)]


def _peer_is_dead(connection: socket.socket) -> bool:
    try:
        pidfd = connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError as error:
        # This kernel does not know the option: no proof either way. Everything else means a peer that is gone,
        # or that we have no file descriptor left to make sure.
        return error.errno != errno.ENOPROTOOPT
    try:
        # A pidfd becomes readable when its process ends (pidfd_open(2)).
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(0))
    finally:
        os.close(pidfd)
