"""The core alone: what one acquire + release costs without any wire (P5), and how it grows with queue and GPUs."""

import collections
import itertools
import statistics
import time
from pathlib import Path

from bench import loop
from bench.drawing import Chart, draw
from bench.figures import Row, verdict
from bench.pairs import measure
from bench.servers import as_promised
from gpuarbiter_server.core import events as ev
from gpuarbiter_server.core.arbiter import Arbiter
from gpuarbiter_server.core.effects import Granted
from gpuarbiter_server.core.model import AcquireRequest, GpuSpec, Holder
from gpuarbiter_server.core.policy import Policy, Settings

_PICTURE = Path(__file__).with_name("growth-core.svg")
_SETTINGS = Settings(
    queue_limit=1_000_000,
    waiting_per_client=0,
    leases_per_client=0,
    default_policy=Policy(max_wait=None, max_hold=0.0),
    aging=0.0,
)
_REQUEST = AcquireRequest("BENCH", Holder("bench"))
_FEW = 10


def _pair_micros(waiters: int, count: int, rounds: int, gpus: int = 1) -> list[float]:
    """CPU microseconds of one acquire at the end of the queue and one release at its head, with every GPU held.

    One after another, and not in turns with other queues: the garbage collector looks at all that there is.
    """
    specs = [GpuSpec(f"gpu:{number}", number, 24 << 30, monitored=False) for number in range(gpus)]
    arbiter = Arbiter(specs, _SETTINGS, 0.0, first_token=1, id_key=b"bench", instance_id="bench")
    held: collections.deque[str] = collections.deque()
    for call in range(waiters + gpus):
        effects = arbiter.handle(ev.Acquire(call, _REQUEST), 0.0)
        held.extend(effect.lease.lease_id for effect in effects if isinstance(effect, Granted))
    assert len(held) == gpus, held
    caller, numbers = ev.Caller(), itertools.count(waiters + gpus)
    times = []
    for _ in range(rounds):
        began = time.process_time()
        for number in itertools.islice(numbers, count):
            now = number * 0.0001
            effects = arbiter.handle(ev.Acquire(number, _REQUEST), now)
            effects += arbiter.handle(ev.Release(-1, caller, lease_id=held.popleft()), now)
            held.extend(effect.lease.lease_id for effect in effects if isinstance(effect, Granted))
        times.append((time.process_time() - began) / count * 1e6)
        assert len(held) == gpus, held
    return times


def rows(*, quick: bool) -> list[Row]:
    """The pair beside that of P1, its growth with the queue, and with the GPUs."""
    queues, count, rounds = ([_FEW, 1_000], 200, 2) if quick else ([_FEW, 100, 1_000, 10_000, 100_000], 1_500, 3)
    sizes = [1, 4] if quick else [1, 2, 4, 8, 16, 32, 64]
    with as_promised() as server:
        whole = [
            loop.run(measure(server, "Acquire stream + Release", turn * 300, 20 if quick else 200)).cpu * 1e6
            for turn in range(rounds)
        ]
    deep = [_pair_micros(waiters, count, rounds) for waiters in queues]
    wide = [_pair_micros(100, count, rounds, gpus) for gpus in sizes]
    if not quick:
        _draw(queues, deep, sizes, wide)
    few, crowd, one, every = (statistics.median(level) for level in (deep[0], deep[-1], wide[0], wide[-1]))
    share = few / statistics.median(whole)
    return [
        (
            f"P5 Core alone: acquire + release, {_FEW} waiters, beside the whole server's Acquire stream + Release",
            f"server: CPU {statistics.median(whole):.0f} µs",
            f"core: CPU {few:.0f} µs ({1e6 / few:,.0f} a second)",
            f"{share:.0%}; " + verdict("at most 10 %", passed=share <= 0.1),
        ),
        (
            f"P5 Core alone: acquire + release with {queues[-1]:,} waiters, beside {_FEW}",
            f"{_FEW} waiters: CPU {few:.0f} µs",
            f"{queues[-1]:,} waiters: CPU {crowd:.0f} µs",
            f"CPU {crowd / few:.2f} ×; " + verdict("at most 2 ×", passed=crowd <= 2 * few),
        ),
        (
            f"Core alone: acquire + release with {sizes[-1]} GPUs and 100 waiters for any, beside 1",
            f"1 GPU: CPU {one:.0f} µs",
            f"{sizes[-1]} GPUs: CPU {every:.0f} µs",
            f"CPU {every / one:.2f} ×",
        ),
    ]


def _draw(queues: list[int], deep: list[list[float]], sizes: list[int], wide: list[list[float]]) -> None:
    title = "CPU of acquire + release in the core, µs"
    charts = [
        Chart(
            title,
            below,
            {"": [(at, statistics.median(times)) for at, times in enumerate(found)]},
            [f"{level:,}" for level in levels],
        )
        for below, levels, found in (("waiting, for one GPU", queues, deep), ("GPUs, 100 waiting for any", sizes, wide))
    ]
    draw(_PICTURE, charts)
