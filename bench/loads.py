"""The server under a load generator in C, so that it is measured and not a Python client: h2load, from Debian's
nghttp2-client.

It sends the same body with each request, so that it can do two things: a unary call again and again, and a whole
session written ahead, whose answers it does not wait for.
"""

import re
import shutil
import statistics
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import grpc

from bench import loop
from bench.figures import Row, spread
from bench.pairs import measure
from bench.servers import Server, as_promised, floor
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import gpu_arbiter_pb2_grpc as bindings
from gpuarbiter.v1 import lease_pb2

_HOLDER = lease_pb2.Holder(client_id="bench")
_FENCE = pb.CheckFenceRequest(gpu="gpu:0", fencing_token=1)


class _Message(Protocol):
    def SerializeToString(self) -> bytes:  # noqa: N802 -- protobuf's name
        """Its bytes."""


@dataclass(frozen=True)
class Sample:
    """One round against one server: how many a second, and seconds of the server's CPU for one."""

    rate: float
    cpu: float


def rows(*, quick: bool) -> list[Row]:
    """A row for the call, and one for the session."""
    if shutil.which("h2load") is None:
        return [("Unary calls and sessions from a client in C", "-", "-", "h2load is not installed")]
    rounds, calls, pairs = (1, 200, 100) if quick else (7, 4000, 2000)
    with floor() as bare, as_promised() as ours:
        for server in (bare, ours):
            loop.run(measure(server, "Session", 0, 20))
        unary, session = [], []
        for turn in range(rounds):
            unary.append([_unary(server, calls) for server in (bare, ours)])
            session.append([_session(server, turn * pairs, pairs) for server in (bare, ours)])
    return [
        _row("CheckFence, 32 in flight, from a client in C", "calls", unary),
        _row("Session: acquire + release, written ahead by a client in C", "pairs", session),
    ]


def _row(measure: str, what: str, turns: list[list[Sample]]) -> Row:
    figures = [
        f"{statistics.median(turn[side].rate for turn in turns):,.0f} {what} a second, "
        f"CPU {statistics.median(turn[side].cpu for turn in turns) * 1e6:.0f} µs"
        for side in (0, 1)
    ]
    ratios = [ours.cpu / bare.cpu for bare, ours in turns]
    rates = statistics.median(ours.rate / bare.rate for bare, ours in turns)
    return (measure, *figures, f"CPU {spread(ratios, 2)} ×, {what} a second {rates:.2f} ×")


def _unary(server: Server, count: int) -> Sample:
    """Small calls, eight at a time on each of four connections."""
    spent = _spent(server, lambda: _h2load(server, "CheckFence", [_FENCE], "-n", str(count), "-c", "4", "-m", "8"))
    return Sample(count / spent.rate, spent.cpu / count)


def _session(server: Server, first: int, count: int) -> Sample:
    """One stream with so many pairs; every one is granted."""
    before = _newest_token(server)
    spent = _spent(server, lambda: _h2load(server, "Session", _pairs(first, count)))
    granted = _newest_token(server) - before
    assert server.name == "floor" or granted == count, f"{granted} of {count} were granted"
    return Sample(count / spent.rate, spent.cpu / count)


def _pairs(first: int, count: int) -> Iterator[pb.SessionRequest]:
    yield pb.SessionRequest(call_id=0, open=pb.SessionOpen(holder=_HOLDER))
    for number in range(first, first + count):
        name = f"ahead-{number}"
        acquire = pb.AcquireRequest(request_id=name, task_type="BENCH", holder=_HOLDER)
        yield pb.SessionRequest(call_id=2 * number + 1, acquire=acquire)
        yield pb.SessionRequest(call_id=2 * number + 2, release=pb.ReleaseRequest(request_id=name))


def _spent(server: Server, work: Callable[[], float]) -> Sample:
    """Seconds that it took, and of the server's CPU."""
    before = server.cpu_seconds()
    took = work()
    return Sample(took, server.cpu_seconds() - before)


def _newest_token(server: Server) -> int:
    with grpc.insecure_channel(server.target) as channel:
        return int(bindings.GpuArbiterStub(channel).CheckFence(_FENCE).newest_token)


def _h2load(server: Server, method: str, messages: Iterable[_Message], *options: str) -> float:
    """Seconds from its first request to its last answer."""
    with tempfile.NamedTemporaryFile() as body:
        body.write(b"".join(map(framed, messages)))
        body.flush()
        command = h2load(server, method, body.name, *options)
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"finished in ([\d.]+)(us|ms|s)", said)
    failed = re.search(r"(\d+) failed, (\d+) errored", said)
    assert found, said
    assert failed, said
    assert failed.groups() == ("0", "0"), said
    return float(found[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[found[2]]


def framed(message: _Message) -> bytes:
    """A message as it stands in the body of a call."""
    content = message.SerializeToString()
    return struct.pack(">BI", 0, len(content)) + content


def h2load(server: Server, method: str, body: str, *options: str) -> list[str]:
    """The command that makes calls with this file as their body."""
    headers = ("-H", "content-type: application/grpc", "-H", "te: trailers")
    base = server.target if server.target.startswith("unix:") else f"http://{server.target}"
    url = f"http://localhost/gpuarbiter.v1.GpuArbiter/{method}"
    return ["h2load", *options, "-d", body, *headers, "-B", base, url]
