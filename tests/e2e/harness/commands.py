"""Commands under `gpu-arbiter run`, as the tests of it start and watch them."""

import socket
from pathlib import Path

from e2e.harness.client import Client
from e2e.harness.waiting import eventually
from fakes.polling import until
from gpuarbiter._guard import family
from gpuarbiter.v1 import lease_pb2

# Ends only when it may, and says when it was asked.
STUBBORN = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: (folder / "asked").touch())
(folder / "pid").write_text(str(os.getpid()))
end = time.monotonic() + 60
while not (folder / "go").exists() and time.monotonic() < end:
    time.sleep(0.01)
"""
# Like vllm serve or llama-server: it answers 503 while the model loads, then 200.
SERVER = """
import http.server, pathlib, sys
loaded = pathlib.Path(sys.argv[2])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if loaded.exists() else 503)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def lives(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    return any(process.pid == pid and not process.zombie for process in family.processes() or ())


def parent_of(pid: int) -> int:
    return next(process.parent for process in family.processes() or () if process.pid == pid)


def members(group: int) -> list[int]:
    """The living processes of a group."""
    seen = family.processes() or []
    return [process.pid for process in seen if process.group == group and not process.zombie]


def written(path: Path) -> str:
    """What a file says, once it says something."""
    until(lambda: path.exists() and bool(path.read_text()), f"{path} to be written")
    return path.read_text().strip()


async def lease_of(client: Client, task_type: str) -> lease_pb2.Lease:
    """Waits for the lease of a task type."""

    async def look() -> lease_pb2.Lease | None:
        leases = (await client.snapshot()).leases
        return next((lease for lease in leases if lease.task_type == task_type), None)

    found = await eventually(look, f"a lease of {task_type}")
    assert found is not None
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
