"""A load under which an arbiter shows everything that it can: no metric of its catalogue stays without a value.

It takes an arbiter with `SETTINGS` and two GPUs of a fake driver, because a simulated GPU knows no NVML errors. On
gpu:1 stands what lasts: a lease, and a request behind it. On gpu:0 the rounds happen, each of them the same, and each
to its end; a distribution shows a rate only when it has grown between two scrapes, so one round is not enough.
"""

import asyncio
import os
from contextlib import AsyncExitStack
from typing import Any, Self

from e2e.harness.client import Acquiring, Client
from e2e.harness.waiting import eventually
from fakes.nvml import GIB, FakeNvml
from gpuarbiter import AsyncArbiter, AsyncLease, WorkReport
from support.messages import holder
from support.process import Arbiterd

NAMESPACE = "team-a"
SETTINGS = (
    "gpus=auto",
    "queue_limit=2",
    "cooldown=0s",
    "sampler.interval=50ms",
    "analysis={step: 100ms, time_window: 5s, interval: 500ms}",
    # Whoever holds a GPU is asked for it, however well it is used; and by no model, because nobody listens there.
    "analysis={thresholds: {low: 100, high: 100}, actions: {yield: always, spare_active: false, min_confidence: 0}}",
    "analysis.ai={enabled: true, url: 'http://127.0.0.1:9/v1', model: none, timeout: 1s}",
    "telemetry.lease_info=true",
    f"telemetry.namespaces=[{NAMESPACE}]",
    "policies.ASR={wait_objective: 1s, hold_objective: 5s}",
    "policies.NMT={priority: 80}",
    "policies.SHORT={max_hold: 100ms, watchdog: {grace: 100ms, revoke: true}}",
)
_BUSY, _LASTING = "gpu:0", "gpu:1"
# What a driver may well not support.
_UNSUPPORTED = "nvmlDeviceGetTemperature"

_REPORTS = (
    ("ASR", WorkReport(work_items=8, duration=0.02)),
    ("ASR", WorkReport(work_items=32, duration=0.09)),
    ("ASR", WorkReport("FAILED", work_items=4, duration=0.01)),
    ("NMT", WorkReport(work_items=64, duration=0.2)),
    ("NMT", WorkReport("OUT_OF_MEMORY", work_items=512, duration=0.4)),
    ("NMT", WorkReport("CANCELLED")),
    ("UNHEARD_OF", WorkReport(work_items=1, duration=0.005)),
)


class MixedLoad:
    """The load on one arbiter, from entering to leaving; `rounds` says how many rounds are over."""

    def __init__(self, arbiter: Arbiterd, fake: FakeNvml) -> None:
        self._address = arbiter.grpc
        self._fake = fake
        self._ends = AsyncExitStack()
        self.rounds = 0

    async def __aenter__(self) -> Self:
        self._client = Client(self._address)
        self._ends.push_async_callback(self._client.close)
        self._library = await self._ends.enter_async_context(AsyncArbiter(self._address, client_id="library"))
        self._fake.unsupported(1, _UNSUPPORTED)
        with self._fake.change() as gpus:
            gpus[0].base_used_bytes = GIB
            gpus[0].load = gpus[1].load = (80, 40)
        self._fake.allocate(1, os.getpid(), 4 * GIB)
        lasting = await self._library.acquire("ASR", gpus=[_LASTING], memory=6 * GIB, shared=False, max_hold=0)
        assert isinstance(lasting, AsyncLease)
        self._ends.push_async_callback(lasting.release)
        waiting = self._ask("NMT", candidates=[_LASTING], max_wait=600)
        await waiting.waits_for("GPU_BUSY")
        self._ends.callback(waiting.cancel)
        self._playing = asyncio.create_task(self._play())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._playing.cancel()
        await asyncio.gather(self._playing, return_exceptions=True)
        await self._ends.aclose()

    def check(self) -> None:
        """Fails when the load has failed."""
        if self._playing.done():
            self._playing.result()

    async def _play(self) -> None:
        while True:
            await self._work()
            await self._contention()
            await self._overstaying()
            await self._vanishing()
            await self._memory()
            self.rounds += 1

    # -- what a round is made of; each part leaves gpu:0 as it found it --

    async def _work(self) -> None:
        """Leases with work of every result, and work that had to do without a GPU."""
        for task, report in _REPORTS:
            async with self._library.lease(task, gpus=[_BUSY]) as lease:
                lease.report(report)
        for result in ("OK", "FAILED"):
            await self._library.report_work("NMT", WorkReport(result, "CPU", work_items=64, duration=1.5))

    async def _contention(self) -> None:
        """Every way to get no GPU: a timeout, a skip, a fallback, a full queue, no memory, a caller who gives up."""
        in_the_way = await self._ask("ASR").granted()
        assert (await self._ask("ASR", max_wait=0.01).refusal()).reason == "WAIT_TIMEOUT"
        for busy_policy in ("SKIP", "FALLBACK_CPU"):
            await self._ask("NMT", busy_policy=busy_policy, max_wait=0).until("declined")
        assert (await self._ask("NMT", memory=100 * GIB).refusal()).reason == "INFEASIBLE"
        anywhere = self._ask("NMT", candidates=[])
        gives_up = self._ask("ASR")
        for waiting in (anywhere, gives_up):
            await waiting.next("queued")
        assert (await self._ask("ASR").refusal()).reason == "QUEUE_FULL"
        gives_up.cancel()
        await self._client.release(in_the_way)
        await self._client.release(await anywhere.granted())

    async def _overstaying(self) -> None:
        """One that yields when the watchdog asks, and one that does not."""
        listens = self._ask("SHORT")
        lease = await listens.granted()
        await listens.next("yield_requested")
        await self._client.release(lease)
        deaf = self._ask("SHORT")
        await deaf.granted()
        await deaf.next("yield_requested")
        await deaf.next("ended")

    async def _vanishing(self) -> None:
        """A holder whose stream breaks."""
        vanishes = self._ask("ASR")
        lease = await vanishes.granted()
        vanishes.cancel()
        await eventually(lambda: self._is_over(lease.lease_id), "the lease of a holder that is gone to end")

    async def _memory(self) -> None:
        """A lease that uses more than it declared, and a request that waits for that memory to come back."""
        job = await self._library.acquire("NMT", gpus=[_BUSY], memory=16 * GIB, shared=True)
        assert isinstance(job, AsyncLease)
        self._fake.allocate(0, os.getpid(), 18 * GIB)
        await eventually(lambda: self._uses(job.lease_id, 18 * GIB), "the memory of a lease to be seen")
        await job.release(WorkReport(work_items=16, duration=0.05))
        large = self._ask("ASR", memory=20 * GIB, shared=True)
        await large.waits_for("MEMORY_RECOVERY")
        self._fake.free(0, os.getpid())
        await self._client.release(await large.granted())

    # --

    def _ask(self, task: str, **wishes: Any) -> Acquiring:
        asker = holder(f"bare-{task}", namespace=NAMESPACE)
        return self._client.acquire(task, asker, **{"candidates": [_BUSY]} | wishes)

    async def _is_over(self, lease_id: str) -> bool:
        return all(lease.lease_id != lease_id for lease in (await self._client.snapshot()).leases)

    async def _uses(self, lease_id: str, amount: int) -> bool:
        leases = {lease.lease_id: lease for lease in (await self._client.snapshot()).leases}
        return leases[lease_id].gpus[0].observed_bytes == amount
