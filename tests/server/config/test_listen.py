"""Where the arbiter listens: loopback alone, and the path of the socket."""

import os
from pathlib import Path

import pytest

from gpuarbiter_server.config import Address, ConfigError, default_socket_path, load
from gpuarbiter_server.config.listen import parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:50051", Address("127.0.0.1", 50051)),
        ("127.8.8.8:1", Address("127.8.8.8", 1)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:65535", Address("::1", 65535)),
    ],
)
def test_a_loopback_address_is_read_and_written(text: str, address: Address):
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "gpu-box:1", "localhost.example:1", "[1.2.3.4.5]:1"]
)
def test_an_address_that_others_can_reach_is_refused_with_the_reason(text: str):
    with pytest.raises(ValueError, match="there is no TLS and no token yet"):
        parse_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "127.0.0.1",
        ":50051",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "::1:1",
        "127.0.0.1:1/x",
        "localhost: 1",
        "http://localhost:1",
    ],
)
def test_what_is_no_address_is_refused(text: str):
    with pytest.raises(ValueError, match="a loopback address with its port"):
        parse_address(text)


def test_the_socket_is_in_the_runtime_folder(monkeypatch: pytest.MonkeyPatch):
    assert default_socket_path({"XDG_RUNTIME_DIR": "/run/user/7"}) == Path("/run/user/7/gpu-arbiter/arbiter.sock")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/8")
    assert default_socket_path() == Path("/run/user/8/gpu-arbiter/arbiter.sock")


@pytest.mark.parametrize("environ", [{}, {"XDG_RUNTIME_DIR": ""}, {"XDG_RUNTIME_DIR": "relative"}])
@pytest.mark.parametrize(
    ("uid", "path"), [(0, "/run/gpu-arbiter/arbiter.sock"), (7, "/tmp/gpu-arbiter-7/arbiter.sock")]
)
def test_without_one_the_socket_is_where_the_user_may_write(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], uid: int, path: str
):
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert default_socket_path(environ) == Path(path)


def test_what_listens_is_resolved(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    listen = load(None, {}).listen
    assert listen.grpc_address() == Address("127.0.0.1", 50051)
    assert listen.http_address() == Address("127.0.0.1", 9402)
    assert listen.socket_path() == Path("/run/user/7/gpu-arbiter/arbiter.sock")
    listen = load(None, {}, ["listen.grpc=off", "listen.http=off", "listen.socket=/tmp/a.sock"]).listen
    assert (listen.grpc_address(), listen.http_address(), listen.socket_path()) == (None, None, Path("/tmp/a.sock"))
    assert load(None, {}, ["listen.socket=off"]).listen.socket_path() is None


def test_where_there_are_no_unix_sockets_auto_is_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(os, "geteuid")
    assert load(None, {}).listen.socket_path() is None


def test_a_runtime_folder_with_too_long_a_path_is_a_clear_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/" + "x" * 100)
    with pytest.raises(
        ConfigError, match=r"listen.socket: .*at most 107 bytes: set listen.socket to a shorter one, or to off"
    ):
        load(None, {}).listen.socket_path()


@pytest.mark.parametrize("path", ["/" + "x" * 106, "/" + "é" * 53])
def test_a_socket_path_of_107_bytes_is_the_longest(path: str):
    assert len(os.fsencode(path)) == 107
    assert load(None, {}, [f"listen.socket={path}"]).listen.socket_path() == Path(path)
    with pytest.raises(ConfigError, match=r"at most 107 bytes, .* this has 108"):
        load(None, {}, [f"listen.socket={path}x"])


@pytest.mark.parametrize(
    "value", ["relative.sock", "unix:/tmp/a", "'@abstract'", "/", "/tmp/", "5", "true", '"/tmp/a\\0b"', "[]"]
)
def test_what_is_no_socket_path_is_refused(value: str):
    with pytest.raises(ConfigError, match="auto, off, or the absolute path"):
        load(None, {}, [f"listen.socket={value}"])


@pytest.mark.parametrize("value", ["5", "50051", "true", "[]", "127.0.0.1"])
def test_a_bad_address_is_a_problem_of_its_key(value: str):
    with pytest.raises(ConfigError, match=r"listen\.http: .*a loopback address with its port"):
        load(None, {}, [f"listen.http={value}"])


def test_an_arbiter_that_nobody_can_reach_is_refused():
    with pytest.raises(ConfigError, match="no client could reach the arbiter"):
        load(None, {}, ["listen.grpc=off", "listen.socket=off"])


def test_two_servers_do_not_take_one_address():
    with pytest.raises(ConfigError, match=r"another address than that of listen\.grpc"):
        load(None, {}, ["listen.http=127.0.0.1:50051"])
    free = load(None, {}, ["listen.grpc=127.0.0.1:0", "listen.http=127.0.0.1:0"]).listen
    assert free.grpc_address() == free.http_address() == Address("127.0.0.1", 0)
