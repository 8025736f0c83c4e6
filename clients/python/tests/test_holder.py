"""Who asks, and where."""

import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuarbiter import _address, _attestation, _holder


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    _holder._process.cache_clear()
    yield
    _holder._process.cache_clear()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_the_holder_is_this_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POD_NAMESPACE", "speech")
    monkeypatch.setenv("POD_NAME", "asr-0")
    monkeypatch.setenv("CONTAINER_NAME", "main")
    holder = _holder.holder("me", attestation="proof")
    assert (holder.client_id, holder.attestation) == ("me", "proof")
    assert holder.pid == os.getpid()
    assert holder.pid_namespace == os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 -- of the link's target
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    assert holder.process_start_ticks == int(stat[19])
    assert (holder.namespace, holder.pod, holder.container) == ("speech", "asr-0", "main")


def test_what_the_system_does_not_tell_is_left_out(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_arguments: object):
        raise OSError("no /proc here")

    monkeypatch.setattr(Path, "readlink", refuse)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    holder = _holder.holder()
    assert (holder.pid_namespace, holder.process_start_ticks) == (0, 0)
    assert holder.pid == os.getpid()


def test_a_process_that_is_not_there_has_no_start():
    assert _holder.start_ticks(2**31 - 1) == 0


@pytest.mark.parametrize(
    ("argument", "program"),
    [
        ("/opt/app/train.py", "train"),
        ("", "python"),
        ("-c", "python"),
        ("/lib/package/__main__.py", "package"),
        ("x" * 300, "xxx"),
    ],
)
def test_the_default_name_is_program_host_and_pid(monkeypatch: pytest.MonkeyPatch, argument: str, program: str):
    monkeypatch.setattr(sys, "argv", [argument])
    name = _holder.default_client_id()
    assert name.startswith(program)
    assert name.endswith(f"-{socket.gethostname()}-{os.getpid()}")
    assert len(name) <= 128


def test_a_long_host_name_leaves_the_pid(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "h" * 300)
    name = _holder.default_client_id()
    assert len(name) == 128
    assert name.endswith(f"-{os.getpid()}")


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("127.0.0.1:50051", "127.0.0.1:50051"),
        (" gpu-node.example:1 ", "gpu-node.example:1"),
        ("[::1]:50051", "[::1]:50051"),
        ("unix:/run/gpu-arbiter/arbiter.sock", "unix:/run/gpu-arbiter/arbiter.sock"),
        ("unix:///run/a.sock", "unix:///run/a.sock"),
    ],
)
def test_addresses(address: str, target: str):
    assert _address.resolve(address) == target


@pytest.mark.parametrize(
    "address", ["", "localhost", ":50051", "host:", "host:port", "host:0", "host:65536", "::1", "::1:5", "unix:", "a:٣"]
)
def test_no_addresses(address: str):
    with pytest.raises(ValueError, match=r"is not an address.*unix:/path"):
        _address.resolve(address)


def test_the_argument_counts_before_the_environment_before_the_default(monkeypatch: pytest.MonkeyPatch):
    assert _address.resolve() == "127.0.0.1:50051"
    monkeypatch.setenv("GPU_ARBITER_ADDRESS", "unix:/run/a.sock")
    assert _address.resolve() == "unix:/run/a.sock"
    assert _address.resolve("node:1") == "node:1"


@pytest.mark.parametrize("target", ["unix:{}/arbiter.sock", "unix://{}/arbiter.sock"])
def test_the_attestation_socket_is_beside_the_other(tmp_path: Path, target: str):
    address = target.format(tmp_path)
    assert _holder.attestation_socket(address) is None
    beside = tmp_path / "arbiter.sock.attest"
    beside.touch()
    assert _holder.attestation_socket(address) == beside
    assert _holder.attestation_socket("127.0.0.1:50051") is None


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")
@pytest.mark.parametrize(("line", "token"), [(b"token-1\n", "token-1"), (b"", ""), (b"\xff\n", "")])
def test_an_attestation_is_one_line(tmp_path: Path, line: bytes, token: str):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(line)

        thread = threading.Thread(target=answer)
        thread.start()
        assert _holder.read_attestation(path) == token
        thread.join()


def test_no_attestation_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert _holder.read_attestation(tmp_path / "nobody") == ""
    monkeypatch.delattr(socket, "AF_UNIX", raising=False)
    assert _holder.read_attestation(tmp_path / "nobody") == ""


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")
def test_a_silent_attestation_socket_is_waited_for_but_not_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_attestation, "_SECONDS", 0.05)
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        assert _holder.read_attestation(path) == ""
