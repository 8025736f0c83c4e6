"""What telemetry costs in process: the observers, fed with all that is recorded of a lease.

Run as `python -m bench.observers LEASES ROUNDS SHARE SECONDS` with the OTEL_* variables of an arbiter, and stderr in a
file. Callers have traces, SHARE of which are sampled; the log gets so many SECONDS to write what it gathers.
Prints CPU seconds per lease of each round as JSON, of all threads, less what the same loop costs without observers.

Without pauses, the code is in the processor's caches and many log lines are written together. With one lease each
10 ms, each finds the caches cold, and wakes the thread that writes.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence

from bench.world import World
from gpuarbiter_server.core.effects import Recorded
from gpuarbiter_server.runtime.clock import monotonic
from gpuarbiter_server.telemetry import logs
from gpuarbiter_server.telemetry.export import Export
from gpuarbiter_server.telemetry.metrics import Metrics
from gpuarbiter_server.telemetry.tracing import Traces

_PACE_SECONDS = 0.01
# What is received and sent for a lease, and the commits of its grant and its end.
_MESSAGES = (
    ("received", "AcquireRequest"),
    *(("sent", kind) for kind in ("Queued", "Granted", "Ended", "ReleaseResponse")),
    ("received", "ReleaseRequest"),
)
_COMMITS = 2

Observe = Callable[[Recorded], None]


class Counters:
    """The metrics, with what is counted beside the records."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._messages = [metrics.message_counter(*message) for message in _MESSAGES]

    def lease(self) -> None:
        """Counts the messages and commits of a lease."""
        for count in self._messages:
            count()
        for _ in range(_COMMITS):
            self._metrics.journal_committed(0.0003)


def _nothing() -> None:
    """What is done beside, where nothing is."""


def main() -> None:
    """Measures and prints."""
    leases, rounds, gathered = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[4])
    world = World(1, 3, 16, shared=False, sampled=float(sys.argv[3]))
    writer = logs.start()
    export = Export("bench", "bench")
    traces = Traces(export.provider, {spec.key: spec.uuid for spec in world.specs}, time.time_ns)
    metrics = Metrics(world.known, monotonic, lambda: traces.current)
    log = logs.EventLog(writer, lambda: traces.current)
    counters = Counters(metrics)

    def cost(observers: Sequence[Observe], beside: Callable[[], None], pause: float) -> float:
        began = time.process_time()
        for lease in recorded:
            if pause:
                time.sleep(pause)
            beside()
            for each in lease:
                for observe in observers:
                    observe(each)
        export.provider.force_flush()
        # The log's thread gathers lines for a while.
        time.sleep(gathered)
        return (time.process_time() - began) / leases

    def above_nothing(observers: Sequence[Observe], beside: Callable[[], None] = _nothing, pause: float = 0.0) -> float:
        return cost(observers, beside, pause) - cost((), _nothing, pause)

    found = []
    every = (traces.observe, metrics.observe, log.observe)
    for _ in range(rounds + 1):
        recorded = [world.step() for _ in range(leases)]
        found.append(
            {
                "all": above_nothing(every, counters.lease),
                "paced": above_nothing(every, counters.lease, _PACE_SECONDS),
                "counters": above_nothing((metrics.observe,), counters.lease),
                "log": above_nothing((log.observe,)),
                "traces": above_nothing((traces.observe,)),
            }
        )
    writer.close()
    export.close()
    # The first round warms up: the channel to the receiver, the label sets.
    print(json.dumps(found[1:]))


if __name__ == "__main__":
    main()
