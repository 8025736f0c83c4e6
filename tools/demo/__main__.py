"""Runs an arbiter, a workload of four task types, and a live table; Ctrl-C ends all of it.

Real GPUs where a driver answers, otherwise one simulated GPU. GPU_ARBITER_… variables reach the arbiter,
so that another address can be chosen: GPU_ARBITER_LISTEN__GRPC=127.0.0.1:0 make run
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path

from gpuarbiter import Arbiter, ArbiterError
from gpuarbiter.cli.tables import render
from gpuarbiter.v1 import admin_pb2, snapshot_pb2
from tools.demo.workload import WORKERS

# The policies of a speech service: recognition before translation before synthesis; repairs only when
# nothing waits. Holds are short, so that the watchdog has something to do within ten seconds.
CONFIG = """\
defaults: {max_hold: 2s, watchdog: {yield: true, grace: 1s, revoke: true}}
policies:
  ASR:             {priority: 90, max_wait: 3s}
  NMT:             {priority: 80, max_wait: 3s}
  TTS:             {priority: 70, max_wait: 2s}
  SEMANTIC_REPAIR: {priority: 20, max_wait: 400ms, busy_policy: SKIP}
"""
_EVENTS_SHOWN = 10
_REFRESH_SECONDS = 0.5
# Where the programs are, for whoever has not activated the environment.
_BIN = os.path.relpath(Path(sys.executable).parent)
_CLEAR = "\x1b[H\x1b[2J"


def main() -> int:
    """Runs until it is interrupted; returns the exit code."""
    # A shell starts what runs in its background with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with tempfile.TemporaryDirectory(prefix="gpu-arbiter-demo-") as folder, contextlib.ExitStack() as stack:
        server, address, console = _start_arbiter(Path(folder))
        if address is None:
            return server.wait()
        stack.callback(_end, server)
        workers = [
            subprocess.Popen(
                [sys.executable, "-m", "tools.demo.workload", name],
                env=os.environ | {"GPU_ARBITER_ADDRESS": address},
                process_group=0,
            )
            for name in WORKERS
        ]
        stack.callback(_end, *workers)
        with contextlib.suppress(KeyboardInterrupt):
            _show(address, console)
        print("\nending the workload, then the arbiter")
    print("done")
    return 0


def _start_arbiter(folder: Path) -> tuple[subprocess.Popen[str], str | None, str]:
    """Starts the arbiter; returns it with its address, or None when it could not start, and that of its console."""
    gpus = "auto" if _driver_answers() else "sim:1x24GiB"
    config = folder / "config.yaml"
    own = f"gpus: {gpus}\nlisten: {{socket: {folder}/arbiter.sock}}\njournal: {{path: {folder}/state}}\n"
    config.write_text(own + CONFIG)
    print(f"starting gpu-arbiterd on {'the GPUs of this machine' if gpus == 'auto' else 'one simulated GPU'}")
    log = (folder / "arbiter.log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "gpuarbiter_server.cli", "serve", "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        process_group=0,
    )
    line = server.stdout.readline() if server.stdout else ""
    found = re.search(r"grpc ([^,\s]+)", line)
    if found is None:
        server.wait()
        print((folder / "arbiter.log").read_text().strip(), file=sys.stderr)
        return server, None, ""
    print(line.strip())
    http = re.search(r"http (\S+)", line)
    if http is None:
        return server, found[1], "off"
    return server, found[1], f"http://{http[1]}/console\n  to sign in: {_BIN}/gpu-arbiterd token --config {config}"


def _driver_answers() -> bool:
    """Whether an NVIDIA driver shows a GPU; asked in a process of its own, which may hang."""
    probe = "from gpuarbiter_server.gpu.nvml import NvmlBackend; NvmlBackend().open()"
    try:
        done = subprocess.run([sys.executable, "-c", probe], capture_output=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _show(address: str, console: str) -> None:
    """The live table, and the newest events below it."""
    events: deque[str] = deque(maxlen=_EVENTS_SHOWN)
    with Arbiter(address, client_id="demo-table") as arbiter:
        threading.Thread(target=_collect, args=(arbiter, events), daemon=True).start()
        clear = _CLEAR if sys.stdout.isatty() else "\n"
        with contextlib.suppress(ArbiterError):
            for snapshot in arbiter.watch(min_interval=_REFRESH_SECONDS):
                print(f"{clear}{_page(address, console, snapshot, events)}", flush=True)


def _page(address: str, console: str, snapshot: snapshot_pb2.ArbiterSnapshot, events: deque[str]) -> str:
    hint = f"grpcurl -plaintext {address} list    {_BIN}/gpu-arbiter --address {address} snapshot    Ctrl-C ends"
    return "\n".join(
        [
            f"GpuArbiter at {address}    {hint}",
            f"in the browser: {console}",
            "",
            render(snapshot),
            "",
            "latest events",
            *events,
        ]
    )


def _collect(arbiter: Arbiter, events: deque[str]) -> None:
    """Follows the audit trail."""
    with contextlib.suppress(ArbiterError):
        for event in arbiter.admin.events(follow=True):
            kind = admin_pb2.EventType.Name(event.type).removeprefix("EVENT_TYPE_")
            at = time.strftime("%H:%M:%S", time.localtime(event.event_time.seconds))
            who = f"{event.task_type} of {event.holder.client_id}" if event.task_type else ",".join(event.gpus)
            events.append(f"  {at} {kind:<16} {who}  {event.detail}")


def _end(*processes: subprocess.Popen[str]) -> None:
    """Ends what was started here, kindly first."""
    for process in processes:
        process.send_signal(signal.SIGINT)
    for process in processes:
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
