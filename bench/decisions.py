"""The core alone: what one acquire + release costs without any wire, and how it grows with the queue (P5)."""

import time

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


def rows(*, quick: bool) -> list[tuple[str, ...]]:
    """One row: the pair at 10 waiters, and at many."""
    many, count = (1_000, 200) if quick else (100_000, 5_000)
    few, crowd = _pair_seconds(10, count) * 1e6, _pair_seconds(many, count) * 1e6
    return [
        (
            f"Core alone: acquire + release with {many:,} waiters, beside 10",
            f"10 waiters: CPU {few:.0f} µs",
            f"{many:,} waiters: CPU {crowd:.0f} µs",
            f"CPU {crowd / few:.2f} ×",
        )
    ]
