"""After a restart: what an earlier start left in the journal is taken up again.

Law: a lease that comes back counts in full. It waits for its holder to join, renew or release it: for its
ttl, or, where it lives by its stream, for the recovery grace; once per sign of life, so that restart after
restart keeps no dead lease. Its hold goes on where it was. After a start of the machine all is over.
"""

from dataclasses import replace

from gpuarbiter_server.core.clocks import set_grace
from gpuarbiter_server.core.effects import Recorded
from gpuarbiter_server.core.ending import finish
from gpuarbiter_server.core.events import Recover
from gpuarbiter_server.core.leases import Lease, PendingYield
from gpuarbiter_server.core.ledger import Gpu
from gpuarbiter_server.core.model import EndReason, EventType, ProcessId, Sharing
from gpuarbiter_server.core.records import (
    EndedRecord,
    GpuSaved,
    Rewritten,
    SavedCooldown,
    SavedGpu,
    SavedLease,
    SavedShare,
)
from gpuarbiter_server.core.saving import everything
from gpuarbiter_server.core.share import Cooldown, Share
from gpuarbiter_server.core.state import State
from gpuarbiter_server.core.ticket import Ticket
from gpuarbiter_server.core.timers import Clock


def recover(state: State, event: Recover, now: float) -> None:
    """Takes up what is left."""
    for record in event.saved.ended:
        # Times of before are none of now: what is known is kept for its whole time again.
        state.leases.close(record if event.same_boot else replace(record, ended_at=now))
    for saved in event.saved.gpus:
        gpu = _find(state, saved.key, saved.uuid)
        if gpu is None:
            state.absent[saved.name] = saved if event.same_boot else replace(saved, cooldown=None)
            continue
        gpu.cordon, gpu.newest_token = saved.cordon, saved.newest_token
        if saved.cooldown is not None and event.same_boot:
            _resume_cooldown(state, gpu, saved.cooldown, same_pids=event.same_pids, now=now)
        state.touch_gpu(gpu)
    for lease in event.saved.leases:
        _recover_lease(state, lease, event, now)
    if not event.same_boot:
        # Every time in the journal is one of before.
        state.save(Rewritten(everything(state), state.journal.tokens_until))
    state.dirty = state.changed = True


def _find(state: State, key: str, uuid: str) -> Gpu | None:
    """The GPU of before: by its UUID where it is known, otherwise by its key; None: it is not there any more."""
    uuids = {gpu.spec.uuid: gpu for gpu in state.gpus.values() if gpu.spec.uuid}
    return uuids.get(uuid) if uuid and uuids else state.gpus.get(key)


def _recover_lease(state: State, saved: SavedLease, event: Recover, now: float) -> None:
    found = [(_find(state, share.gpu, share.uuid), share) for share in saved.shares]
    shares = [(gpu, share) for gpu, share in found if gpu is not None]
    for gpu, _ in shares:
        gpu.newest_token = max(gpu.newest_token, saved.token)
        state.touch_gpu(gpu)
    gone = [share for gpu, share in found if gpu is None]
    detail = f"{', '.join(share.gpu for share in gone)} is not there any more"
    for share in gone:
        _leave_behind(state, saved, share, event, now)
    if not event.same_boot:
        _over(state, saved, EndReason.HOLDER_DIED, 0.0, "the machine was started again", now)
        return
    if not shares:
        _over(state, saved, EndReason.GPU_LOST, now - saved.granted_at, detail, now)
        return
    lease = _restore(state, saved, shares, same_pids=event.same_pids, now=now)
    if gone:
        finish(state, lease, EndReason.GPU_LOST, now, detail=detail)


def _over(state: State, saved: SavedLease, reason: EndReason, held: float, detail: str, now: float) -> None:
    """It ended while the arbiter was away."""
    state.close(EndedRecord(saved.lease_id, saved.key, saved.token, reason, held, now, detail))
    state.emit(
        Recorded(
            EventType.ENDED,
            lease_id=saved.lease_id,
            request_id=saved.key.request_id,
            task_type=saved.request.task_type,
            holder=saved.request.holder,
            gpus=tuple(share.gpu for share in saved.shares),
            fencing_token=saved.token,
            detail=detail,
            waited=saved.granted_at - saved.enqueued_at,
            held=held,
            end_reason=reason,
            priority=saved.terms.priority,
            sharing=saved.sharing,
            context=saved.request.context,
            traceparent=saved.request.traceparent,
            tracestate=saved.request.tracestate,
        )
    )


def _restore(
    state: State, saved: SavedLease, shares: list[tuple[Gpu, SavedShare]], *, same_pids: bool, now: float
) -> Lease:
    request = saved.request
    if not same_pids:
        request = replace(request, holder=replace(request.holder, process=None))
    ticket = Ticket(state.next_arrival(), saved.key, request, saved.terms, None, saved.enqueued_at)
    ticket.named = saved.named
    ticket.gpus = tuple(gpu for gpu, _ in shares)
    lease = Lease(saved.lease_id, saved.token, ticket, saved.granted_at)
    # Its holder may know of it, whatever became of its Granted.
    lease.joined = True
    lease.sharing = saved.sharing
    lease.yields = {y.reason: PendingYield(y.detail, y.until, y.end_reason, asked=y.asked) for y in saved.yields}
    lease.shares = tuple((gpu, _share(lease, share, same_pids=same_pids)) for gpu, share in shares)
    state.leases.restore(lease)
    state.requests.put(saved.key, lease)
    state.gates.enter(ticket)
    state.gates.granted(ticket)
    state.adopt(ticket.process)
    for gpu, share in lease.shares:
        gpu.restore(share)
    patience = _restart_clocks(state, lease, saved, now)
    state.record(EventType.RECOVERED, lease, detail=f"waits for its holder for {patience:.3f} s")
    state.touch(lease)
    return lease


def _share(lease: Lease, saved: SavedShare, *, same_pids: bool) -> Share:
    ticket = lease.ticket
    stand_in = ticket.request.gpu.resident_bytes
    share = Share(lease.lease_id, saved.declared, ticket.process, stand_in, lease.granted_at)
    share.committed, share.peak = saved.committed, saved.peak
    share.exclusive = lease.sharing is Sharing.EXCLUSIVE
    share.resident, share.used_before = saved.resident, saved.used_before
    share.baseline = frozenset(saved.baseline if same_pids else ())
    share.unclaimed = True
    return share


def _restart_clocks(state: State, lease: Lease, saved: SavedLease, now: float) -> float:
    """Sets its clocks; returns for how long it waits for its holder."""
    patience = lease.terms.ttl or state.settings.recovery_grace
    lease.recover_until = now + patience if saved.recover_until is None else saved.recover_until
    state.timers.set((Clock.PATIENCE, lease), max(now, lease.recover_until))
    lease.hold_until, lease.hold_passed = saved.hold_until, saved.hold_passed
    if lease.hold_until is not None and not lease.hold_passed:
        state.timers.set((Clock.HOLD, lease), max(now, lease.hold_until))
    set_grace(state, lease)
    overdue = state.timers.when((Clock.GRACE, lease))
    if overdue is not None:
        state.timers.set((Clock.GRACE, lease), max(now, overdue))
    return max(0.0, lease.recover_until - now)


def _leave_behind(state: State, saved: SavedLease, share: SavedShare, event: Recover, now: float) -> None:
    """The GPU is away, and its holder may be running still: should it be back soon, it cools down."""
    kept = state.absent.get(share.uuid or share.gpu, SavedGpu(share.gpu, share.uuid, 0, None, None))
    kept = replace(kept, newest_token=max(kept.newest_token, saved.token))
    if event.same_boot and saved.sharing is Sharing.EXCLUSIVE and state.settings.cooldown:
        process = saved.request.holder.process if event.same_pids else None
        cooldown = SavedCooldown(
            lease_id=saved.lease_id,
            since=now,
            until=now + state.settings.cooldown,
            baseline=share.baseline if event.same_pids else (),
            holder_known=process is not None,
            family=() if process is None else (process,),
        )
        kept = replace(kept, cooldown=cooldown)
    state.absent[kept.name] = kept
    state.save(GpuSaved(kept))


def _resume_cooldown(state: State, gpu: Gpu, saved: SavedCooldown, *, same_pids: bool, now: float) -> None:
    """A cooldown goes on. Where pids mean something else here than there, only time ends it."""
    cooldown = Cooldown(saved.lease_id, saved.since, saved.until, frozenset(saved.baseline if same_pids else ()))
    cooldown.by_reading, cooldown.announced = gpu.spec.monitored, True
    family: tuple[ProcessId, ...] = saved.family if same_pids else ()
    cooldown.holder_known = saved.holder_known and same_pids
    cooldown.family = set(family)
    gpu.cooldown = cooldown
    for member in family:
        state.watch(member)
    state.timers.set((Clock.COOLDOWN, gpu), max(now, saved.until))
