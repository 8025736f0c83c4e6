"""A core with GPUs, task types, leases and waiters, without any wire: what the observers and the page are fed with."""

import itertools
import secrets

from gpuarbiter_server.app.observing import known
from gpuarbiter_server.config.load import load
from gpuarbiter_server.core import events as ev
from gpuarbiter_server.core.arbiter import Arbiter
from gpuarbiter_server.core.effects import Effect, Granted, Recorded, Refresh
from gpuarbiter_server.core.model import AcquireRequest, EventType, GpuReading, GpuRequest, GpuSpec, Holder, Sharing
from gpuarbiter_server.runtime.clock import monotonic, wall
from gpuarbiter_server.telemetry.sources import Known, Sources

_GIB = 1 << 30
# By the memory that each declares, eleven at a time on a GPU of 24 GiB.
_SHARED = GpuRequest(memory_bytes=2 * _GIB, sharing=Sharing.SHARED)


class World:
    """An arbiter whose GPUs are full, and whose queue is as long as asked for.

    shared: whether eleven share a GPU that is looked at, each with memory of its own, or each has one for itself that
    nobody looks at. sampled: the share of requests whose caller's trace is sampled; None: callers have no traces.
    """

    def __init__(self, gpus: int, tasks: int, waiters: int, *, shared: bool, sampled: float | None = None) -> None:
        self._tasks = [f"TASK_{number}" for number in range(tasks)]
        self._gpu = _SHARED if shared else GpuRequest()
        self._sampled = sampled
        self._numbers = itertools.count(1)
        self._held: list[str] = []
        self.specs = [
            GpuSpec(f"gpu:{number}", number, 24 * _GIB, _uuid(number), "Bench GPU", monitored=shared)
            for number in range(gpus)
        ]
        policies = [f"policies.{task}={{max_wait: null, max_hold: 1h}}" for task in self._tasks]
        settings = ["queue_limit=100000", "limits.waiting_per_client=0", *policies]
        config = load(None, {}, settings)
        self.known: Known = known(config, self.specs)
        self.arbiter = Arbiter(
            self.specs, config.settings(), monotonic(), first_token=1, id_key=b"bench", instance_id="bench"
        )
        self.sources = Sources(
            "bench",
            census=lambda: self.arbiter.census(monotonic()),
            wall=wall,
        )
        self.look()
        while self.arbiter.snapshot(monotonic(), max_tickets=1).queue_length < waiters:
            self._heed(self._acquire())

    def look(self, *gpus: str) -> list[Effect]:
        """Looks at these GPUs, or at all."""
        effects = []
        for gpu in gpus or [spec.key for spec in self.specs if spec.monitored]:
            figures = (0.5, 0.25, 180.0, 300.0, 57.0, 1_500_000_000)
            reading = GpuReading(monotonic(), 0, 24 * _GIB, *figures, processes=())
            effects += self.arbiter.handle(ev.ReadingTaken(gpu, reading), monotonic())
        return effects

    def step(self) -> list[Recorded]:
        """A lease ends, the next is granted, and another request comes: all that is recorded of one lease."""
        release = ev.Release(-next(self._numbers), ev.Caller(), lease_id=self._held.pop(0))
        effects = self.arbiter.handle(release, monotonic())
        # Its memory has to be seen free before another gets it.
        effects += self.look(*(gpu for effect in effects if isinstance(effect, Refresh) for gpu in effect.gpus))
        effects += self._acquire()
        recorded = self._heed(effects)
        ended = sum(each.type is EventType.ENDED for each in recorded)
        granted = sum(each.type is EventType.GRANTED for each in recorded)
        assert ended == granted == 1, recorded
        return recorded

    def _heed(self, effects: list[Effect]) -> list[Recorded]:
        """Remembers who holds a lease; returns what observers are told."""
        self._held += [effect.lease.lease_id for effect in effects if isinstance(effect, Granted)]
        return [effect for effect in effects if isinstance(effect, Recorded)]

    def _acquire(self) -> list[Effect]:
        number = next(self._numbers)
        request = AcquireRequest(
            self._tasks[number % len(self._tasks)],
            Holder(f"client-{number % 50}", pid=number, namespace="speech", pod=f"worker-{number % 50}"),
            request_id=f"6411c79b-{number}",
            gpu=self._gpu,
            traceparent=self._traceparent(number),
        )
        return self.arbiter.handle(ev.Acquire(number, request), monotonic())

    def _traceparent(self, number: int) -> str:
        if self._sampled is None:
            return ""
        flags = "01" if int(number * self._sampled) != int((number - 1) * self._sampled) else "00"
        return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-{flags}"


def _uuid(number: int) -> str:
    return f"GPU-{number:08x}-2f1c-4e55-9a01-0123456789ab"
