"""A run of the utilization analysis over a real Prometheus that scrapes a DCGM-shaped exporter.

The floor is a bare client that asks the same queries at once and reads the answers as they are: that is Prometheus' own
share. What others wait for meanwhile is seen at /healthz, asked again and again.
"""

import contextlib
import http.client
import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from bench.figures import Row, spread, verdict
from bench.servers import Server, arbiter

_TESTS = Path(__file__).parents[1] / "tests"
_STEPS = 20
_NAMESPACES = ("asr", "nmt", "tts", "train", "dev")
# Every metric that a run asks for, of GPU n.
_FIGURES: dict[str, Callable[[int], float]] = {
    "GPU_UTIL": lambda number: number % 101,
    "MEM_COPY_UTIL": lambda number: number % 61,
    "FB_USED": lambda number: number % 80 * 1024,
    "FB_FREE": lambda number: (80 - number % 80) * 1024,
    "POWER_USAGE": lambda number: 60 + number % 340,
    "SM_CLOCK": lambda number: 1200 + number % 780,
    "POWER_MGMT_LIMIT": lambda _number: 400,
}
_PROBE_SECONDS = 0.002


def rows(*, quick: bool) -> list[Row]:
    """A row for each size of a fleet."""
    return [_row(24, 1.0, quick=quick), _row(2_000, 10.0, quick=quick)]


def _row(gpus: int, target: float, *, quick: bool) -> Row:
    measure = f"Utilization analysis over a Prometheus: {gpus:,} GPUs in {len(_NAMESPACES)} namespaces, {_STEPS} steps"
    binary = shutil.which("prometheus")
    if binary is None:
        return (measure, "-", "-", "prometheus is not installed")
    rounds, step = (2, 0.5) if quick else (15, 2.0)
    with (
        _prometheus(binary, gpus, step) as url,
        arbiter("analysis.enabled=false") as without,
        _analysing(url, step) as server,
    ):
        bare = [_timed(lambda: _asked(url, step)) for _ in range(rounds)]
        with _probing(server) as idle:
            time.sleep(rounds * 0.1)
        with _probing(server) as meanwhile:
            found = [_timed(lambda: _analyzed(server, gpus)) for _ in range(rounds)]
        more = server.resident_bytes() - without.resident_bytes()
    took = f"{spread(found, 3)} s; others wait for {_wait(meanwhile)} meanwhile, for {_wait(idle)} without"
    ratio = statistics.median(found) / statistics.median(bare)
    return (
        measure,
        f"the same queries alone: {spread(bare, 3)} s",
        f"{took}; {more >> 20} MiB more than an arbiter without an analysis",
        f"{ratio:.1f} ×; " + verdict(f"below {target:g} s", passed=max(found) < target),
    )


@contextlib.contextmanager
def _prometheus(binary: str, gpus: int, step: float) -> Iterator[str]:
    """The address of a Prometheus that has a whole window of so many GPUs, and goes on."""
    # These are the tests', which are no package.
    sys.path.append(str(_TESTS))
    from e2e.harness.dcgm import DcgmExporter, DcgmGpu
    from e2e.harness.prometheus import Prometheus, scrape
    from fakes.polling import until

    fleet = [
        DcgmGpu(
            {
                "gpu": str(number % 8),
                "UUID": f"GPU-{number:08}-0000-0000-0000-000000000000",
                "device": f"nvidia{number % 8}",
                "modelName": "NVIDIA H100 80GB HBM3",
                "Hostname": f"node-{number // 8}",
                "container": "main",
                "namespace": _NAMESPACES[number % len(_NAMESPACES)],
                "pod": f"trainer-{number}",
            },
            {name: figure(number) for name, figure in _FIGURES.items()},
        )
        for number in range(gpus)
    ]
    with (
        tempfile.TemporaryDirectory() as folder,
        DcgmExporter(fleet) as exporter,
        Prometheus(binary, scrape("dcgm", exporter.address, f"{step * 1000:.0f}ms"), Path(folder)) as server,
    ):
        until(lambda: server.value("count(DCGM_FI_DEV_POWER_MGMT_LIMIT)") == gpus, "for the first scrape")
        time.sleep(_STEPS * step)
        yield server.url


@contextlib.contextmanager
def _analysing(url: str, step: float) -> Iterator[Server]:
    """An arbiter that looks there when it is asked to."""
    window = f"time_window: {step * _STEPS:g}s, step: {step * 1000:.0f}ms"
    said = f"analysis={{interval: 1h, {window}, prometheus: {{url: '{url}'}}}}"
    # Whom it finds is of no interest here.
    with arbiter(said, "log_levels={analysis: error}") as server:
        # Its first run is at the start, and what it imports late it imports now.
        _analyzed(server, None)
        yield server


def _analyzed(server: Server, gpus: int | None) -> None:
    connection = http.client.HTTPConnection(server.http, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", "/analyze")
        answer: Any = json.load(connection.getresponse())
    assert answer["status"] == "ok", answer
    assert gpus is None or answer["message"].startswith(f"{gpus} GPUs"), answer


def _asked(url: str, step: float) -> None:
    """The queries of a run, all at once."""
    end = time.time()
    span = {"start": f"{end - (_STEPS - 1) * step:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"}

    def ask(metric: str) -> int:
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
        with contextlib.closing(connection):
            query = urlencode({"query": f'DCGM_FI_DEV_{metric}{{pod!=""}}', **span})
            connection.request(
                "POST", "/api/v1/query_range", query, {"content-type": "application/x-www-form-urlencoded"}
            )
            return len(connection.getresponse().read())

    with ThreadPoolExecutor(len(_FIGURES)) as pool:
        assert all(size > 1000 for size in pool.map(ask, _FIGURES))


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@contextlib.contextmanager
def _probing(server: Server) -> Iterator[list[float]]:
    """How long each answer of /healthz takes, until the end of the block; seconds."""
    over = threading.Event()
    taken: list[float] = []

    def probe() -> None:
        connection = http.client.HTTPConnection(server.http, timeout=60)
        with contextlib.closing(connection):
            while not over.wait(_PROBE_SECONDS):
                began = time.perf_counter()
                connection.request("GET", "/healthz")
                connection.getresponse().read()
                taken.append(time.perf_counter() - began)

    prober = threading.Thread(target=probe)
    prober.start()
    try:
        yield taken
    finally:
        over.set()
        prober.join()


def _wait(taken: list[float]) -> str:
    return f"{statistics.median(taken) * 1e3:.1f} ms (at most {max(taken) * 1e3:.0f})"
