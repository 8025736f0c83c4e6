"""The HTTP side of an arbiter as a test's script tells it to be, beside a scripted gRPC side that it tells of.

What it shows is right until a test spoils it: `answers` stand in for whole answers, `spoil` changes the text of
the page, `figures` what is counted.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fakes.scripted_arbiter import Call, ScriptedArbiter, seconds
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import lease_pb2, snapshot_pb2

CLASSIC = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_FILLERS = 22


class HoldingArbiter(ScriptedArbiter):
    """A scripted arbiter whose snapshots show the leases that it granted, on one GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, lease_pb2.Lease] = {}
        self.grants = 0
        self.waiting = 0
        self.releases = True
        # Added to the revision with every snapshot.
        self.restless = 0
        self._revision = 1
        self.answers["Release"] = self._release

    def Acquire(self, request: pb.AcquireRequest, context: Any) -> Iterator[pb.AcquireResponse]:  # noqa: N802
        """Grants, unless a script is there."""
        if not self.scripts:
            self.scripts.append(self._grant)
        yield from super().Acquire(request, context)

    def _grant(self, call: Call) -> Iterator[pb.AcquireResponse]:
        self.grants += 1
        gpu = lease_pb2.GpuGrant(key="gpu:0", committed_bytes=call.request.gpu.memory_bytes)
        granted = call.granted(lease_id=f"lease-{self.grants}", gpus=[gpu])
        self.hold(granted.granted.lease)
        yield granted
        yield from call.hold()

    def hold(self, lease: lease_pb2.Lease) -> None:
        """A lease is there from now on."""
        self.held[lease.lease_id] = lease

    def _release(self, request: pb.ReleaseRequest, _context: Any) -> pb.ReleaseResponse:
        lease = self.held[request.lease_id]
        if self.releases:
            del self.held[request.lease_id]
        self.open(f"released {lease.request_id}")
        return pb.ReleaseResponse(reason=lease_pb2.END_REASON_RELEASED, held=seconds(0.1))

    @property
    def committed(self) -> int:
        """Memory promised to the leases."""
        return sum(gpu.committed_bytes for lease in self.held.values() for gpu in lease.gpus)

    def Snapshot(self, request: pb.SnapshotRequest, context: Any) -> Iterator[pb.SnapshotResponse]:  # noqa: N802
        """How it stands."""
        self.note("Snapshot", request, context)
        self._revision += self.restless
        gpu = snapshot_pb2.GpuSnapshot(key="gpu:0", memory=snapshot_pb2.GpuMemory(committed_bytes=self.committed))
        snapshot = snapshot_pb2.ArbiterSnapshot(
            epoch=1,
            revision=self._revision,
            gpus=[gpu],
            leases=list(self.held.values()),
            queue_length=self.waiting,
        )
        yield pb.SnapshotResponse(snapshot=snapshot)


@dataclass(frozen=True)
class Figures:
    """What the page shows; None: no such series."""

    leases: int | None
    waiters: int | None
    committed: int | None
    received: int | None
    sent: int | None


@dataclass(frozen=True)
class Reply:
    """A whole answer."""

    status: int = 200
    body: str = ""
    content_type: str = "text/plain; charset=utf-8"
    location: str = ""


class ScriptedSite:
    """The server; `arbiter` is what it tells of."""

    def __init__(self, arbiter: HoldingArbiter) -> None:
        self.arbiter = arbiter
        # By path, and "HEAD path" for HEAD alone.
        self.answers: dict[str, Reply] = {}
        self.figures: Callable[[Figures], Figures] = lambda figures: figures
        self.spoil: Callable[[str], str] = lambda text: text
        self.spoil_openmetrics: Callable[[str], str] = lambda text: text
        self.seen: list[str] = []
        handler = type("Handler", (_Handler,), {"site": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        """Its base."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        """Serves."""
        self._thread.start()

    def stop(self) -> None:
        """Listens no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def change(self, **figures: int | None) -> None:
        """These figures stay so, whatever happens."""
        self.figures = lambda right: replace(right, **figures)

    def reply(self, method: str, path: str, accept: str) -> Reply:
        """The answer to a request."""
        self.seen.append(f"{method} {path}")
        given = self.answers.get(f"{method} {path}") or self.answers.get(path)
        if given:
            return given
        match path:
            case "/healthz":
                return Reply(body="OK")
            case "/metrics":
                openmetrics = "openmetrics" in accept
                text = self._text(openmetrics=openmetrics)
                return Reply(body=text, content_type=OPENMETRICS if openmetrics else CLASSIC)
        return Reply(404, "Not Found")

    def _text(self, *, openmetrics: bool) -> str:
        arbiter = self.arbiter
        asked = len(arbiter.seen["Acquire"])
        right = Figures(len(arbiter.held), arbiter.waiting, arbiter.committed, asked, arbiter.grants)
        shown = self.figures(right)
        labels = 'gpu="gpu:0",task="other"'
        families = [(f"filler_{chr(ord('a') + number)}", "gauge", "", {"": 1}) for number in range(_FILLERS)]
        families += [
            ("leases", "gauge", "", {f'{labels},state="held"': shown.leases}),
            ("waiters", "gauge", "", {f'{labels},reason="gpu_busy"': shown.waiters}),
            ("memory_committed_bytes", "gauge", "", {'gpu="gpu:0"': shown.committed}),
            (
                *("rpc_messages", "counter", "_total"),
                {
                    'direction="received",type="AcquireRequest"': shown.received,
                    'direction="sent",type="AcquireResponse.granted"': shown.sent,
                },
            ),
        ]
        lines = []
        for name, kind, suffix, values in families:
            family = f"gpu_arbiter_{name}{'' if openmetrics else suffix}"
            lines += [f"# HELP {family} Words.", f"# TYPE {family} {kind}"]
            for pairs, value in values.items():
                if value is not None:
                    lines.append(f"gpu_arbiter_{name}{suffix}{{{pairs}}} {value}".replace("{}", ""))
        text = "\n".join(lines) + "\n"
        return self.spoil_openmetrics(f"{text}# EOF\n") if openmetrics else self.spoil(text)


class _Handler(BaseHTTPRequestHandler):
    site: ScriptedSite

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        reply = self.site.reply(self.command, self.path, self.headers.get("Accept", ""))
        body = reply.body.encode()
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(body)))
        if reply.location:
            self.send_header("Location", reply.location)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Says nothing."""
