"""The state in its durable form, and the changes to it as they come about."""

from gpuarbiter_server.core.leases import Lease
from gpuarbiter_server.core.ledger import Gpu
from gpuarbiter_server.core.records import (
    GpuSaved,
    LeaseSaved,
    Saved,
    SavedCooldown,
    SavedGpu,
    SavedLease,
    SavedShare,
    SavedYield,
)
from gpuarbiter_server.core.share import Share
from gpuarbiter_server.core.state import State


def flush(state: State) -> None:
    """Hands out what has changed since the last time, once for each lease and GPU."""
    journal = state.journal
    if journal.leases:
        for lease in [lease for lease in journal.leases if lease.lease_id in state.leases.live]:
            state.save(LeaseSaved(saved_lease(lease)))
            if not lease.offered:
                journal.offers.setdefault(lease, journal.number)
        journal.leases.clear()
    if journal.gpus:
        for gpu in journal.gpus:
            state.save(GpuSaved(saved_gpu(gpu)))
        journal.gpus.clear()


def everything(state: State) -> Saved:
    """The whole state."""
    return Saved(
        leases=tuple(saved_lease(lease) for lease in state.leases.live.values()),
        ended=state.leases.all_ended(),
        gpus=(*(saved_gpu(gpu) for gpu in state.gpus.values()), *state.absent.values()),
    )


def saved_lease(lease: Lease) -> SavedLease:
    """A lease as it must come back after a restart."""
    ticket = lease.ticket
    return SavedLease(
        lease_id=lease.lease_id,
        token=lease.token,
        key=ticket.key,
        named=ticket.named,
        request=ticket.request,
        terms=ticket.terms,
        sharing=lease.sharing,
        enqueued_at=ticket.enqueued_at,
        granted_at=lease.granted_at,
        hold_until=lease.hold_until,
        hold_passed=lease.hold_passed,
        yields=tuple(
            SavedYield(reason, pending.detail, pending.until, pending.end_reason, pending.asked)
            for reason, pending in lease.yields.items()
        ),
        shares=tuple(_saved_share(gpu, share) for gpu, share in lease.shares),
        recover_until=lease.recover_until,
    )


def saved_gpu(gpu: Gpu) -> SavedGpu:
    """What is kept of a GPU."""
    cooldown = gpu.cooldown
    return SavedGpu(
        key=gpu.key,
        uuid=gpu.spec.uuid,
        newest_token=gpu.newest_token,
        cordon=gpu.cordon,
        cooldown=None
        if cooldown is None
        else SavedCooldown(
            lease_id=cooldown.lease_id,
            since=cooldown.since,
            until=cooldown.until,
            baseline=tuple(sorted(cooldown.baseline)),
            holder_known=cooldown.holder_known,
            family=tuple(sorted(cooldown.family)),
        ),
    )


def _saved_share(gpu: Gpu, share: Share) -> SavedShare:
    return SavedShare(
        gpu=gpu.key,
        uuid=gpu.spec.uuid,
        declared=share.declared,
        committed=share.committed,
        peak=share.peak,
        resident=share.resident,
        used_before=share.used_before,
        baseline=tuple(sorted(share.baseline)),
    )
