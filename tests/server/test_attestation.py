import asyncio
import errno
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gpuarbiter_server.api import attestation
from gpuarbiter_server.api.attestation import SO_PEERPIDFD, AttestationServer
from gpuarbiter_server.core.model import ProcessId
from gpuarbiter_server.gpu.processes import identify

Make = Callable[..., Any]

# Fetches a token, says its pid and the token, and lives until its standard input closes.
CLIENT = """
import os, socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
    print(os.getpid(), connection.makefile().read().strip(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "attest.sock"


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Make:
    factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop

    def run_it(coroutine: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(asyncio.wait_for(coroutine, 30))

    return run_it


def ourselves() -> ProcessId:
    process = identify(os.getpid())
    assert process is not None
    return process


async def fetch(path: Path) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def test_another_process_is_known_by_its_token(run: Make, path: Path):
    async def scene():
        server = AttestationServer(path)
        await server.start()
        client = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            CLIENT,
            str(path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        said = (await client.stdout.readline()).decode().split()
        assert int(said[0]) == client.pid
        assert server.resolve(said[1]) == identify(client.pid)
        client.stdin.close()
        await client.wait()
        assert server.resolve(said[1]).pid == client.pid  # whoever watches it finds out
        await server.close()
        assert server.resolve(said[1]) is None

    run(scene())


def test_the_same_process_gets_the_same_token(run: Make, path: Path):
    async def scene():
        server = AttestationServer(path)
        await server.start()
        first, *others = await asyncio.gather(*(fetch(path) for _ in range(100)))
        assert others == [first] * 99
        assert first.endswith(b"\n")
        assert len(first) > 40
        assert server.resolve(first.decode().strip()) == ourselves()
        assert server.resolve("") is None
        assert server.resolve(first.decode()[:-2]) is None
        await server.close()
        await server.close()

    run(scene())


def test_who_hangs_up_at_once_does_no_harm(run: Make, path: Path):
    async def scene():
        server = AttestationServer(path)
        await server.start()
        for _ in range(50):
            with socket.socket(socket.AF_UNIX) as caller:
                caller.connect(str(path))
        assert server.resolve((await fetch(path)).decode().strip()) == ourselves()
        await server.close()

    run(scene())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def is_there(path: Path) -> bool:
    return path.exists()


@pytest.fixture
def folder(path: Path) -> Path:
    path.parent.mkdir()
    return path.parent


async def test_only_our_user_can_connect(path: Path):
    server = AttestationServer(path)
    mask = os.umask(0o022)
    os.umask(mask)
    await server.start()
    assert mode(path.parent) == 0o700
    assert mode(path) & 0o077 == 0
    after = os.umask(mask)
    assert after == mask
    await server.close()
    assert not is_there(path)


@pytest.mark.usefixtures("folder")
async def test_a_leftover_socket_is_replaced(path: Path):
    with socket.socket(socket.AF_UNIX) as earlier:
        earlier.bind(str(path))
    server = AttestationServer(path)
    await server.start()
    assert server.resolve((await fetch(path)).decode().strip()) == ourselves()
    await server.close()


async def test_a_running_arbiter_keeps_its_socket(path: Path):
    first, second = AttestationServer(path), AttestationServer(path)
    await first.start()
    with pytest.raises(OSError, match=r"somebody answers at .*attest\.sock already: is another arbiter running\?"):
        await second.start()
    await second.close()
    assert first.resolve((await fetch(path)).decode().strip()) == ourselves()
    await first.close()


@pytest.mark.usefixtures("folder")
async def test_an_arbiter_whose_backlog_is_full_is_running_too(path: Path):
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with pytest.raises(OSError, match="somebody answers"):
            await AttestationServer(path).start()


@pytest.mark.usefixtures("folder")
def test_a_file_in_the_way_stays(run: Make, path: Path):
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="is there and is no socket"):
        run(AttestationServer(path).start())
    assert path.read_text() == "precious"


async def test_a_path_that_is_too_long(tmp_path: Path):
    with pytest.raises(OSError, match="too long"):
        await AttestationServer(tmp_path / ("x" * 200)).start()


async def test_a_platform_without_credentials(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(socket, "SO_PEERCRED")
    with pytest.raises(OSError, match="this platform's sockets do not tell who is calling"):
        await AttestationServer(path).start()


class Connection:
    """A socket as the kernel would describe it: this pid, and a pidfd or the error for asking."""

    def __init__(self, pid: int, peer: int | OSError) -> None:
        self._pid = pid
        self._peer = peer
        self.sent: list[bytes] = []

    def getsockopt(self, _level: int, option: int, _size: int = 0) -> bytes | int:
        if option != SO_PEERPIDFD:
            return attestation.CREDENTIALS.pack(self._pid, 1000, 1000)
        if isinstance(self._peer, OSError):
            raise self._peer
        return self._peer

    def setblocking(self, _: bool) -> None:
        pass

    def send(self, line: bytes) -> None:
        self.sent.append(line)


OLD_KERNEL = OSError(errno.ENOPROTOOPT, "Protocol not available")


def test_a_caller_of_another_namespace_gets_nothing(path: Path, caplog: pytest.LogCaptureFixture):
    caller = Connection(0, OLD_KERNEL)
    AttestationServer(path)._answer(caller)
    assert caller.sent == []
    assert "a caller of user 1000" in caplog.text


def test_a_caller_that_is_gone_gets_nothing(path: Path):
    for caller in (
        Connection(2**22 + 1, OLD_KERNEL),
        Connection(os.getpid(), ProcessLookupError()),
        Connection(os.getpid(), OSError(errno.EMFILE, "Too many open files")),
    ):
        AttestationServer(path)._answer(caller)
        assert caller.sent == []


def test_a_pid_that_passed_to_another_process_proves_nothing(path: Path):
    """The peer is dead, by its pidfd; its pid is that of a living process, ours."""
    dead = subprocess.Popen(["true"])
    peer = os.pidfd_open(dead.pid)
    dead.wait()
    caller = Connection(os.getpid(), peer)
    AttestationServer(path)._answer(caller)
    assert caller.sent == []
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(peer)


def test_a_pid_that_changes_hands_while_we_look_proves_nothing(path: Path):
    answers = iter([ProcessId(7, 1), ProcessId(7, 2)])
    caller = Connection(7, OLD_KERNEL)
    AttestationServer(path, find_process=lambda _: next(answers))._answer(caller)
    assert caller.sent == []


def test_a_living_caller_is_proved_with_and_without_a_pidfd(path: Path):
    server = AttestationServer(path)
    for caller in (Connection(os.getpid(), os.pidfd_open(os.getpid())), Connection(os.getpid(), OLD_KERNEL)):
        server._answer(caller)
        assert server.resolve(caller.sent[0].decode().strip()) == ourselves()


def token_of(server: AttestationServer, process: ProcessId) -> str:
    caller = Connection(process.pid, OLD_KERNEL)
    server._identify = lambda _: process
    server._answer(caller)
    return caller.sent[0].decode().strip()


def test_the_table_is_bounded_and_the_dead_go_first(path: Path):
    server = AttestationServer(path, max_tokens=2)
    us, dead, newer = ourselves(), ProcessId(2**22 + 1, 1), ProcessId(2**22 + 2, 1)
    ours, gone = token_of(server, us), token_of(server, dead)
    last = token_of(server, newer)
    assert [server.resolve(token) for token in (ours, gone, last)] == [us, None, newer]


def test_without_dead_ones_the_oldest_goes(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attestation, "is_alive", lambda _: True)
    server = AttestationServer(path, max_tokens=2)
    processes = [ProcessId(n, n) for n in (1, 2, 3)]
    tokens = [token_of(server, process) for process in processes]
    assert [server.resolve(token) for token in tokens] == [None, *processes[1:]]
    assert len({*tokens}) == 3


class Listener:
    """Out of file descriptors for the first caller; nobody afterwards."""

    def __init__(self, real: socket.socket) -> None:
        self._real = real
        self.failures = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    def accept(self) -> tuple[socket.socket, object]:
        if not self.failures:
            self.failures += 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self._real.accept()


async def test_callers_wait_while_there_are_no_descriptors(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(attestation, "PAUSE_SECONDS", 0.001)
    server = AttestationServer(path)
    await server.start()
    listener = server._listener = Listener(server._listener)
    asyncio.get_running_loop().remove_reader(listener.fileno())
    server._listen(listener)
    assert server.resolve((await fetch(path)).decode().strip()) == ourselves()
    assert "cannot take a caller at" in caplog.text
    await server.close()


async def test_closing_while_callers_wait(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attestation, "PAUSE_SECONDS", 0.0)
    server = AttestationServer(path)
    await server.start()
    server._pause(server._listener)
    await server.close()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not is_there(path)
