"""The locks that people would use instead: redis-py's on a redis-server, aetcd's on an etcd.

Each server is ours, on loopback ports of its own, with its files in a folder that goes with it. Who lacks one of
the programs (Debian: redis-server, etcd-server) gets None, and a row that says so.
"""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

import aetcd
import redis
import redis.asyncio

from bench.servers import free_port

LOCK = "gpu:0"
# Nobody holds it that long; without it, redis-py never lets a dead holder's lock go.
TTL_SECONDS = 30
_START_SECONDS = 20.0


@dataclass(frozen=True)
class Peer:
    """A server that runs."""

    port: int


class RedisHolder:
    """redis-py's lock for asyncio. It asks again each `sleep` seconds, 0.1 unless told."""

    def __init__(self, client: redis.asyncio.Redis, *, sleep: float = 0.1) -> None:
        self._lock = client.lock(LOCK, timeout=TTL_SECONDS, sleep=sleep)

    async def acquire(self) -> None:
        """Returns once it is held."""
        await self._lock.acquire()

    async def release(self) -> None:
        """Returns once it is given back."""
        await self._lock.release()


class EtcdHolder:
    """aetcd's lock, which watches for its end."""

    def __init__(self, client: aetcd.Client) -> None:
        self._lock = client.lock(LOCK.encode(), ttl=TTL_SECONDS)

    async def acquire(self) -> None:
        """Returns once it is held."""
        await self._lock.acquire(timeout=None)

    async def release(self) -> None:
        """Returns once it is given back."""
        await self._lock.release()


@contextlib.contextmanager
def redis_server(*, durable: bool) -> Iterator[Peer | None]:
    """A redis-server that writes each change to disk before it answers, or that keeps nothing."""
    kept = ("--appendonly", "yes", "--appendfsync", "always") if durable else ("--appendonly", "no")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        where = ("--port", str(port), "--bind", "127.0.0.1", "--dir", folder)
        with _serving(["redis-server", *where, "--save", "", *kept], port) as peer:
            yield peer


@contextlib.contextmanager
def etcd_server() -> Iterator[Peer | None]:
    """An etcd of one member, as it comes."""
    port = free_port()
    clients, peers = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory() as folder:
        command = ["etcd", "--data-dir", folder, "--log-level", "error"]
        command += ["--listen-client-urls", clients, "--advertise-client-urls", clients, "--listen-peer-urls", peers]
        command += ["--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}"]
        with _serving(command, port) as peer:
            yield peer


@contextlib.contextmanager
def _serving(command: list[str], port: int) -> Iterator[Peer | None]:
    """The process, from when it takes connections to the end of the block; None where it is not installed."""
    if shutil.which(command[0]) is None:
        yield None
        return
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)} did not start")
            time.sleep(0.05)
        yield Peer(port)
    finally:
        process.terminate()
        process.wait(timeout=20)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
