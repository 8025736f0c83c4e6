"""Who ran out of memory, and what it should declare the next time.

    next declaration = 1.25 x the observed peak, or x what was declared where no peak was seen

The factor is gpusched's. Where the policy of the task type says so, whoever ran out of memory declares at
least that from then on, up to what its candidates have; for as long as it is remembered, and no longer than
the arbiter runs.
"""

from collections import OrderedDict
from typing import NamedTuple

from gpuarbiter_server.core.leases import Lease
from gpuarbiter_server.core.ledger import Gpu
from gpuarbiter_server.core.model import EndReason, Identity, WorkDevice, WorkReport, WorkResult

FACTOR = 1.25
_REMEMBERED = 4096
# A GPU with less free than this share of its memory is full.
_FULL_RATIO = 0.01


class Eater(NamedTuple):
    """Whose requests look alike."""

    identity: Identity
    task_type: str


class Appetites:
    """The least that those who ran out of memory are to declare, in bytes."""

    def __init__(self) -> None:
        self._least: OrderedDict[Eater, int] = OrderedDict()

    def ran_out(self, eater: Eater, peak_bytes: int) -> None:
        """It ran out of memory with this much of it."""
        self._least[eater] = max(self._least.get(eater, 0), int(FACTOR * peak_bytes))
        self._least.move_to_end(eater)
        if len(self._least) > _REMEMBERED:
            self._least.popitem(last=False)

    def least(self, eater: Eater) -> int:
        """What it is to declare at least; 0: whatever it likes."""
        return self._least.get(eater, 0)


def eater_of(lease: Lease) -> Eater:
    """Whose lease it is."""
    return Eater(lease.ticket.key.identity, lease.ticket.request.task_type)


def peak_of(lease: Lease) -> int:
    """The most that it was seen to use on a GPU, or what it declared."""
    return max(max(share.peak or 0, share.declared) for _, share in lease.shares)


def judged(lease: Lease, reason: EndReason, report: WorkReport | None) -> WorkReport | None:
    """The holder's own report; without one, that it ran out of memory where it died on a GPU that was full."""
    if report is None and reason is EndReason.HOLDER_DIED and any(_full(gpu) for gpu, _ in lease.shares):
        return WorkReport(WorkResult.OUT_OF_MEMORY, WorkDevice.GPU)
    return report


def _full(gpu: Gpu) -> bool:
    reading = gpu.reading
    if reading is None or reading.memory_used_bytes is None or gpu.stale:
        return False
    free = gpu.spec.total_bytes - gpu.spec.reserved_bytes - reading.memory_used_bytes
    return free < _FULL_RATIO * gpu.spec.total_bytes
