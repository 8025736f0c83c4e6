"""Where the arbiter listens: loopback addresses and a Unix socket.

Law: nothing here opens anything. Only this machine can reach the arbiter, since there is neither
TLS nor a token yet; an address that others could reach is refused, not warned about.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import PlainValidator, WithJsonSchema

from gpuarbiter_server.config.kinds import Kind
from gpuarbiter_server.config.problems import ConfigError, Problem

OFF = "off"
AUTO = "auto"
# sun_path of sockaddr_un holds 108 bytes on Linux, the final zero among them.
MAX_SOCKET_PATH_BYTES = 107
_MAX_PORT = 65535
_ADDRESS_FORM = "a loopback address with its port, such as 127.0.0.1:50051, [::1]:50051 or localhost:50051, or off"


class Address(NamedTuple):
    """A TCP address; port 0 lets the system choose one."""

    host: str
    port: int

    def __str__(self) -> str:
        """As it is configured; an IPv6 host in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """The address of "127.0.0.1:50051", "[::1]:50051" or "localhost:50051".

    Raises:
        ValueError: with what is allowed, also for an address that other machines can reach.
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/\s]+)):([0-9]{1,5})", text)
    if not match or int(match[3]) > _MAX_PORT:
        raise ValueError(_ADDRESS_FORM)
    host = match[1] or match[2]
    if not _is_loopback(host):
        raise ValueError(
            f"{_ADDRESS_FORM}: other machines could reach {host}, and there is no TLS and no token yet to stop them"
        )
    return Address(host, int(match[3]))


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_address(value: object) -> str:
    if value == OFF:
        return OFF
    if not isinstance(value, str):
        raise ValueError(_ADDRESS_FORM)  # noqa: TRY004 -- pydantic takes no TypeError
    parse_address(value)
    return value


def _check_socket(value: object) -> str:
    if value in (OFF, AUTO):
        return str(value)
    # A control character in a path is a mistake, and a zero byte an error deep inside.
    if not isinstance(value, str) or not re.fullmatch(r"/[^\x00-\x1f]*[^\x00-\x1f/]", value):
        raise ValueError("auto, off, or the absolute path of a Unix socket")
    length = len(os.fsencode(value))
    if length > MAX_SOCKET_PATH_BYTES:
        raise ValueError(
            f"a path of at most {MAX_SOCKET_PATH_BYTES} bytes, the most that a Unix socket can have; this has {length}"
        )
    return value


def default_socket_path(environ: Mapping[str, str] | None = None) -> Path:
    """Where the Unix socket is unless configured; the clients look there too.

    In $XDG_RUNTIME_DIR where there is one, for root in /run, for others in /tmp under their uid.
    """
    runtime = (os.environ if environ is None else environ).get("XDG_RUNTIME_DIR", "")
    # The XDG base directory specification: a path that is not absolute is to be ignored.
    if runtime.startswith("/"):
        return Path(runtime, "gpu-arbiter", "arbiter.sock")
    uid = os.geteuid()
    return Path("/run/gpu-arbiter/arbiter.sock") if uid == 0 else Path(f"/tmp/gpu-arbiter-{uid}/arbiter.sock")  # noqa: S108 -- the runtime makes the folder, with mode 0700


def socket_path(said: str) -> Path | None:
    """The path that listen.socket comes to; None where it is off, or auto where there are no Unix sockets.

    Raises:
        ConfigError: the path that auto comes to is longer than a Unix socket's can be.
    """
    if said == OFF or (said == AUTO and not hasattr(os, "geteuid")):
        return None
    path = default_socket_path() if said == AUTO else Path(said)
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        allowed = f"a path of at most {MAX_SOCKET_PATH_BYTES} bytes: set listen.socket to a shorter one, or to off"
        raise ConfigError([Problem("listen.socket", str(path), "auto, by XDG_RUNTIME_DIR", allowed)])
    return path


TcpAddress = Annotated[
    str,
    PlainValidator(_check_address),
    WithJsonSchema({"type": "string", "pattern": r"^(off|(\[[0-9A-Fa-f:.]+\]|[^\[\]:/\s]+):[0-9]{1,5})$"}),
    Kind("loopback address with port, or off"),
]
SocketPath = Annotated[
    str,
    PlainValidator(_check_socket),
    WithJsonSchema({"type": "string", "pattern": r"^(off|auto|/.+)$"}),
    Kind("auto, off or absolute path"),
]
