"""Where the arbiter is, and how to keep the line to it alive.

Law: the argument counts, then GPU_ARBITER_ADDRESS, then the default; a bad one is a ValueError that says
what is allowed.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from gpuarbiter._version import __version__

ADDRESS_VARIABLE = "GPU_ARBITER_ADDRESS"
TOKEN_VARIABLE = "GPU_ARBITER_TOKEN"  # noqa: S105 -- the name of a variable, no secret
DEFAULT_ADDRESS = "127.0.0.1:50051"

_ALLOWED = 'write "host:port" or "unix:/path/to/arbiter.sock"'
_MAX_PORT = 65535

CHANNEL_OPTIONS: Sequence[tuple[str, str | int]] = (
    # A peer that froze, or a line that was cut without a word, is noticed within 2 s, as the arbiter does on its
    # side: early enough to join again before it gives up a lease whose stream it has lost. Without
    # ping_timeout_ms it could take a minute.
    ("grpc.keepalive_time_ms", 1_000),
    ("grpc.keepalive_timeout_ms", 1_000),
    ("grpc.http2.ping_timeout_ms", 1_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC's own are made for the internet: after an outage the first call would wait for seconds. These and the
    # library's own pause add up, and are to stay well within the two seconds in which it is back. The minimum is
    # the time-out of a connect, too, so it must not be short.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 500),
    # The arbiter is on this node: http_proxy in the environment is not about it.
    ("grpc.enable_http_proxy", 0),
    ("grpc.primary_user_agent", f"gpu-arbiter-client-python/{__version__}"),
)


def resolve(address: str | None = None) -> str:
    """The gRPC target for an address: "host:port" or "unix:/path"."""
    chosen = (address if address is not None else os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS).strip()
    if chosen.startswith("unix:"):
        if not _socket_text(chosen):
            raise ValueError(f"{chosen!r} is not an address: the path is missing; {_ALLOWED}")
        return chosen
    host, colon, port = chosen.rpartition(":")
    # Without brackets, "::1" would read as the host ":" and the port 1.
    bare_ipv6 = ":" in host and not (host.startswith("[") and host.endswith("]"))
    if not (host and colon) or bare_ipv6 or not (port.isascii() and port.isdigit() and 0 < int(port) <= _MAX_PORT):
        raise ValueError(f"{chosen!r} is not an address; {_ALLOWED}")
    return chosen


def _socket_text(target: str) -> str:
    # gRPC takes unix:relative, unix:/absolute and unix:///absolute alike.
    rest = target.removeprefix("unix:")
    return rest.removeprefix("//") if rest.startswith("///") else rest


def socket_path(target: str) -> Path | None:
    """The path of a Unix socket target; None for any other."""
    return Path(_socket_text(target)) if target.startswith("unix:") else None
