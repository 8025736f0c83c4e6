"""Why a request waits, what is in its way, and how long it may take: in words and for programs."""

from collections.abc import Iterable
from heapq import nsmallest
from itertools import islice

from gpuarbiter_server.core.admission import obstacle
from gpuarbiter_server.core.leases import Lease
from gpuarbiter_server.core.ledger import Gpu
from gpuarbiter_server.core.model import WaitReason
from gpuarbiter_server.core.state import State
from gpuarbiter_server.core.ticket import Ticket
from gpuarbiter_server.core.views import BlockerView

MOST_BLOCKERS = 8
# What to wait before trying again when nothing is known, and at least, in seconds.
_DEFAULT_RETRY = 1.0
_LEAST_RETRY = 0.1

# Where candidates differ, the nearest way out names the reason.
_NEAREST_FIRST = (
    WaitReason.MEMORY_RECOVERY,
    WaitReason.RECOVERY,
    WaitReason.MEMORY,
    WaitReason.GPU_BUSY,
    WaitReason.NO_READING,
    WaitReason.COOLDOWN,
    WaitReason.DRAINING,
    WaitReason.GPU_UNHEALTHY,
)

_WORDS = {
    WaitReason.MEMORY_RECOVERY: "the memory of a lease that ended has not left the GPU yet",
    WaitReason.RECOVERY: "a lease from before the restart of the arbiter waits for its holder to come back",
    WaitReason.JOURNAL: "the journal cannot be written, so no grant can be made durable",
    WaitReason.MEMORY: "the declared memory does not fit beside what is committed and in use",
    WaitReason.GPU_BUSY: "a lease is in the way",
    WaitReason.NO_READING: "there is no current reading of the GPU",
    WaitReason.COOLDOWN: "a lease ended without its holder's word, and its processes may still be running",
    WaitReason.DRAINING: "too few of the candidate GPUs are in service: cordoned",
    WaitReason.GPU_UNHEALTHY: "too few of the candidate GPUs are in service: lost",
    WaitReason.QUEUE_ORDER: "requests ahead come first",
    WaitReason.SEQUENCE: "an earlier index of its sequence has not finished",
    WaitReason.CONCURRENCY_LIMIT: "its task type or client holds as many leases as it may",
    WaitReason.UNSPECIFIED: "its stream is gone",
}


def wait_reason(state: State, ticket: Ticket) -> WaitReason:
    """What keeps a waiting request back, apart from order; QUEUE_ORDER when nothing else does."""
    gate = state.gates.closed(ticket, state.settings)
    if gate is not None:
        return gate.reason
    if state.journal.fault is not None:
        return WaitReason.JOURNAL
    refuse = state.settings.memory.refuse_when_stale
    found = [obstacle(gpu, ticket, refuse_when_stale=refuse) for gpu in ticket.gpus]
    if found.count(None) >= ticket.request.gpu.count:
        return WaitReason.QUEUE_ORDER
    return next(reason for reason in _NEAREST_FIRST if reason in found)


def describe(reason: WaitReason, blockers: Iterable[BlockerView]) -> str:
    """One line for people."""
    named = [f"{b.gpu}: {b.task_type} of {b.client_id}, for {b.held:.1f} s" for b in blockers]
    return _WORDS[reason] + (f" ({'; '.join(named)})" if named else "")


def blockers_of(gpus: Iterable[Gpu], state: State, now: float) -> tuple[BlockerView, ...]:
    """The leases on these GPUs, the oldest first, at most 8."""
    oldest = nsmallest(
        MOST_BLOCKERS,
        (
            (state.leases.live[lease_id].token, gpu.key, lease_id)
            for gpu in gpus
            for lease_id in islice(gpu.shares, MOST_BLOCKERS)
        ),
    )
    return tuple(_blocker(state.leases.live[lease_id], key, now) for _, key, lease_id in oldest)


def _blocker(lease: Lease, gpu: str, now: float) -> BlockerView:
    return BlockerView(
        lease_id=lease.lease_id,
        task_type=lease.ticket.request.task_type,
        client_id=lease.ticket.key.identity.client_id,
        gpu=gpu,
        held=now - lease.granted_at,
    )


def facts_of(reason: WaitReason, blockers: tuple[BlockerView, ...]) -> dict[str, str]:
    """The same as error metadata."""
    facts = {"wait_reason": reason.name}
    if blockers:
        first = blockers[0]
        facts |= {
            "holder": first.client_id,
            "holder_task_type": first.task_type,
            "holder_gpu": first.gpu,
            "held_seconds": f"{first.held:.3f}",
        }
    return facts


def estimated_wait(ticket: Ticket, position: int, blockers: Iterable[BlockerView]) -> float | None:
    """A guess from recent holds, in seconds; None when there is nothing to guess from.

    Each candidate serves one at a time: what is left of the longest-held leases, and a typical hold for
    each turn before this one. blockers: the leases that are held longest.
    """
    holds = [hold for gpu in ticket.gpus if (hold := gpu.stats.typical_hold) is not None]
    if not holds:
        return None
    typical = sum(holds) / len(holds)
    held = max((blocker.held for blocker in blockers), default=typical)
    turns = (position - 1) // max(1, len(ticket.gpus) // ticket.request.gpu.count)
    return max(0.0, typical - held) + turns * typical


def retry_after(gpus: Iterable[Gpu]) -> float:
    """When trying again has a chance, in seconds: a typical hold, or one second."""
    holds = [hold for gpu in gpus if (hold := gpu.stats.typical_hold) is not None]
    return max(_LEAST_RETRY, min(holds)) if holds else _DEFAULT_RETRY
