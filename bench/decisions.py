"""The core alone: what one acquire + release costs without any wire, and how it grows with the queue (P5)."""

import statistics
import time

from bench import loop
from bench.figures import Row, spread, verdict
from bench.pairs import measure
from bench.servers import as_promised
from gpuarbiter_server.core import events as ev
from gpuarbiter_server.core.arbiter import Arbiter
from gpuarbiter_server.core.effects import Granted
from gpuarbiter_server.core.model import AcquireRequest, GpuSpec, Holder
from gpuarbiter_server.core.policy import Policy, Settings

_GPU = GpuSpec("gpu:0", 0, 24 << 30, monitored=False)
_SETTINGS = Settings(
    queue_limit=1_000_000, waiting_per_client=0, default_policy=Policy(max_wait=None, max_hold=0.0), aging=0.0
)
_REQUEST = AcquireRequest("BENCH", Holder("bench"))


def _pair_seconds(waiters: int, count: int) -> float:
    """CPU seconds of one acquire at the end of the queue and one release at its head."""
    arbiter = Arbiter([_GPU], _SETTINGS, 0.0, first_token=1, id_key=b"bench", instance_id="bench")
    held = ""
    for call in range(waiters + 1):
        for effect in arbiter.handle(ev.Acquire(call, _REQUEST), 0.0):
            held = effect.lease.lease_id if isinstance(effect, Granted) else held
    caller = ev.Caller()
    began = time.process_time()
    for number in range(count):
        now = number * 0.0001
        effects = arbiter.handle(ev.Acquire(waiters + 1 + number, _REQUEST), now)
        effects += arbiter.handle(ev.Release(-1, caller, lease_id=held), now)
        held = next(effect.lease.lease_id for effect in effects if isinstance(effect, Granted))
    return (time.process_time() - began) / count


def rows(*, quick: bool) -> list[Row]:
    """The pair beside that of P1, and its growth with the queue."""
    many, count, rounds = (1_000, 200, 2) if quick else (100_000, 5_000, 5)
    few, crowd, whole = [], [], []
    with as_promised() as server:
        for turn in range(rounds):
            few.append(_pair_seconds(10, count) * 1e6)
            crowd.append(_pair_seconds(many, count) * 1e6)
            sample = loop.run(measure(server, "Acquire stream + Release", turn * 300, 20 if quick else 200))
            whole.append(sample.cpu * 1e6)
    share = statistics.median(core / pair for core, pair in zip(few, whole, strict=True))
    growth = [more / less for less, more in zip(few, crowd, strict=True)]
    return [
        (
            "P5 Core alone: acquire + release, 10 waiters, beside the whole server's Acquire stream + Release",
            f"server: CPU {statistics.median(whole):.0f} µs",
            f"core: CPU {statistics.median(few):.0f} µs ({1e6 / statistics.median(few):,.0f} a second)",
            f"{share:.0%}; " + verdict("at most 10 %", passed=share <= 0.1),
        ),
        (
            f"P5 Core alone: acquire + release with {many:,} waiters, beside 10",
            f"10 waiters: CPU {statistics.median(few):.0f} µs",
            f"{many:,} waiters: CPU {statistics.median(crowd):.0f} µs",
            f"CPU {spread(growth, 2)} ×; " + verdict("at most 2 ×", passed=statistics.median(growth) <= 2),
        ),
    ]
