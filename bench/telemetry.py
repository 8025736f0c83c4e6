"""What telemetry costs: CPU of a lease, the page of metrics, a scrape under load, a receiver that is not there (P7).

The arbiters keep their journals in memory, so that the disk does not stand between the figures.
"""

import contextlib
import http.client
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench import loop, pages, sessions
from bench.figures import quantile, spread, verdict
from bench.pairs import measure
from bench.receiver import nobody, receiver, sampled
from bench.scraper import each_second, scrape
from bench.servers import Server, arbiter

_ON = ("log_level=info", "journal.durability=memory", "queue_limit=100")
_OFF = ("log_level=error", "journal.durability=memory", "telemetry.metrics=false")
# Spans are exported after five seconds at the latest.
_LAST_EXPORT_SECONDS = 6.0


def rows(*, quick: bool) -> list[tuple[str, ...]]:
    """Every row; those with a target say whether it is met."""
    return [
        _per_lease(quick=quick),
        _observers(quick=quick),
        pages.counting(quick=quick),
        pages.small(quick=quick),
        _over_http(quick=quick),
        pages.large(quick=quick),
        _scraped("1 GPU and 3 task types", _known(1, 3), quick=quick),
        _scraped("8 GPUs and 20 task types", _known(8, 20), quick=quick),
        _receivers(quick=quick),
    ]


def _known(gpus: int, tasks: int) -> tuple[str, ...]:
    """Settings with so many GPUs and task types."""
    listed = ", ".join(f"{{key: 'gpu:{number}', memory: 24GiB}}" for number in range(gpus))
    return (f"gpus=[{listed}]", *(f"policies.TASK_{number}.max_hold=8s" for number in range(tasks)))


def _per_lease(*, quick: bool) -> tuple[str, ...]:
    """The CPU of a pair in an arbiter with everything on, less that in one with everything off."""
    rounds, count = (2, 30) if quick else (15, 400)
    with receiver() as received, contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(arbiter(*_OFF)),
            *(stack.enter_context(_logging(sampled(received.endpoint, share))) for share in (0.01, 1.0)),
        ]
        spent: list[list[float]] = []
        before = [server.cpu_seconds() for server in servers]
        for turn in range(rounds):
            for server in servers:
                loop.run(measure(server, "Session", turn * (count + 20), count))
            if turn == rounds - 1 and not quick:
                time.sleep(_LAST_EXPORT_SECONDS)
            # What is exported or written while another server has its turn counts as well.
            now = [server.cpu_seconds() for server in servers]
            spent.append([(new - old) / (count + 20) * 1e6 for new, old in zip(now, before, strict=True)])
            before = now
    off, few, full = (statistics.median(turn[side] for turn in spent) for side in range(3))
    more = [[turn[side] - turn[0] for turn in spent] for side in (1, 2)]
    return (
        "Telemetry of a lease: CPU of acquire + release over a Session, INFO logs and metrics on, beside all off",
        f"off: CPU {off:.0f} µs",
        f"1 % of traces: CPU {few:.0f} µs; all: CPU {full:.0f} µs",
        f"1 %: {spread(more[0])} µs more; all: {spread(more[1])} µs more; "
        + verdict("below 100 µs at 1 %", passed=statistics.median(more[0]) < 100),
    )


def _observers(*, quick: bool) -> tuple[str, ...]:
    """The same in process: only what observes."""
    leases, rounds, gathered = (20, 1, 0.02) if quick else (200, 5, 0.3)
    found = {}
    with receiver() as received, tempfile.TemporaryDirectory() as folder:
        for share in (0.01, 1.0):
            command = [sys.executable, "-m", "bench.observers", *map(str, (leases, rounds, share, gathered))]
            with Path(folder, "log").open("w+") as log:
                environment = os.environ | sampled(received.endpoint, share)
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=log, env=environment)
                log.seek(0)
                granted = sum(" GRANTED " in line for line in log)
            # All together, one each 10 ms, and the log alone.
            assert granted == 3 * leases * (rounds + 1), f"{granted} grants were logged"
            turns = json.loads(done.stdout)
            found[share] = {kind: [turn[kind] * 1e6 for turn in turns] for kind in turns[0]}
    few, full = found[0.01], found[1.0]
    alone = ", ".join(f"{kind} {statistics.median(few[kind]):.0f}" for kind in ("counters", "log", "traces"))
    hot, cold = (f"1 %: {spread(few[kind])} µs, all: {spread(full[kind])} µs" for kind in ("all", "paced"))
    return (
        "Telemetry of a lease in process: CPU of the observers and the threads behind them",
        f"each alone, 1 % of traces: {alone} µs",
        f"without pauses {hot}; one lease each 10 ms {cold}",
        verdict("below 100 µs at 1 %", passed=statistics.median(few["all"]) < 100),
    )


def _over_http(*, quick: bool) -> tuple[str, ...]:
    """The same page from an arbiter, one request after another on one connection."""
    with arbiter("journal.durability=memory", *_known(1, 3)) as server:
        loop.run(measure(server, "Session", 0, 20))
        connection = http.client.HTTPConnection(server.http)
        page = scrape(connection)
        before, began, count = server.cpu_seconds(), time.perf_counter(), 0
        while time.perf_counter() - began < (0.3 if quick else 5.0):
            scrape(connection)
            count += 1
        took, cpu = time.perf_counter() - began, server.cpu_seconds() - before
        connection.close()
    return (
        f"That page over HTTP, {len(page) // 1000} kB",
        "-",
        f"{count / took:,.0f} requests a second, CPU {cpu / count * 1e3:.2f} ms each",
        "no target: that is for the page in process",
    )


def _scraped(what: str, settings: tuple[str, ...], *, quick: bool) -> tuple[str, ...]:
    """Hand-offs with a scrape each second, and without."""
    rounds, seconds = (1, 1.0) if quick else (15, 1.5)
    with arbiter("journal.durability=memory", "queue_limit=100", *settings) as server:
        turns = []
        for _ in range(rounds):
            without = loop.run(sessions.hand_offs(server, seconds)).gaps
            with each_second(server):
                turns.append((without, loop.run(sessions.hand_offs(server, seconds)).gaps))
    ratios = [quantile(scraped, 0.99) / quantile(without, 0.99) for without, scraped in turns]
    both = [list(itertools.chain.from_iterable(turn[side] for turn in turns)) for side in (0, 1)]
    without, scraped = (
        f"p50 {quantile(gaps, 0.5) * 1e3:.2f} ms, p99 {quantile(gaps, 0.99) * 1e3:.2f} ms" for gaps in both
    )
    return (
        f"Hand-off among 16 clients, a scrape each second, {what}",
        f"without: {without}",
        f"with: {scraped}",
        f"p99 {spread(ratios, 2)} ×; " + verdict("at most 1.10 ×", passed=statistics.median(ratios) <= 1.1),
    )


def _receivers(*, quick: bool) -> tuple[str, ...]:
    """Grants with every trace sampled: for a receiver that is not there, for one that is, and without traces."""
    rounds, count = (2, 30) if quick else (15, 300)
    with receiver() as received, nobody() as dead, contextlib.ExitStack() as stack:
        environments = {"off": {}, "alive": sampled(received.endpoint, 1.0), "dead": sampled(dead, 1.0)}
        servers = {name: stack.enter_context(_logging(each)) for name, each in environments.items()}
        turns = [
            {name: loop.run(sessions.grants(server, count)) for name, server in servers.items()} for _ in range(rounds)
        ]
        lost = {name: _spans_dropped(servers[name]) for name in ("alive", "dead")}
    ratios = [statistics.median(turn["dead"]) / statistics.median(turn["alive"]) for turn in turns]
    figures = {}
    for name in servers:
        every = [seconds for turn in turns for seconds in turn[name]]
        figures[name] = f"{statistics.median(every) * 1e6:.0f} µs (p99 {quantile(every, 0.99) * 1e6:.0f})"
    return (
        "A grant, every trace sampled, with no receiver there",
        f"no traces: {figures['off']}; receiver there: {figures['alive']}, {lost['alive']:,} spans lost",
        f"no receiver: {figures['dead']}, {lost['dead']:,} spans lost and counted",
        f"{spread(ratios, 2)} × that with a receiver; "
        + verdict("at most 1.10 ×, losses counted", passed=statistics.median(ratios) <= 1.1 and lost["dead"] > 0),
    )


@contextlib.contextmanager
def _logging(environment: Mapping[str, str]) -> Iterator[Server]:
    """An arbiter with metrics and INFO logs that go to a file."""
    with tempfile.TemporaryDirectory() as folder, arbiter(*_ON, environment=environment, log=Path(folder, "log")) as it:
        yield it


def _spans_dropped(server: Server) -> int:
    page = scrape(http.client.HTTPConnection(server.http)).decode()
    found = re.search(r"^gpu_arbiter_spans_dropped_total (\d+)$", page, re.MULTILINE)
    assert found, "the page does not say how many spans were lost"
    return int(found[1])
