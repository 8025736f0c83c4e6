"""What can be done with a lease while it is held, and after: release, renew, resize, check, report."""

from gpuarbiter_server.core.clocks import claim, set_hold, start_patience, ttl_remaining
from gpuarbiter_server.core.effects import Done, FenceChecked, PendingYield, Recorded, Released, Renewed, Resized
from gpuarbiter_server.core.ending import finish
from gpuarbiter_server.core.errors import ArbiterError, ErrorReason, Violation, invalid, unknown_lease
from gpuarbiter_server.core.events import Call, Caller, CancelStream, CheckFence, Release, Renew, ReportWork, Resize
from gpuarbiter_server.core.journaling import check_journal
from gpuarbiter_server.core.leases import Lease
from gpuarbiter_server.core.ledger import Gpu
from gpuarbiter_server.core.model import EndReason, EventType, Identity, RequestKey, Sharing, WorkReport
from gpuarbiter_server.core.records import EndedRecord
from gpuarbiter_server.core.share import PEAK_MARGIN, Share
from gpuarbiter_server.core.snapshots import lease_view
from gpuarbiter_server.core.state import State
from gpuarbiter_server.core.ticket import Ticket
from gpuarbiter_server.core.timers import Clock
from gpuarbiter_server.core.withdrawal import take_back


def release(state: State, event: Release, now: float) -> None:
    """Ends a lease, or takes a waiting request back; what has ended already is answered as such."""
    subject = _target(state, event)
    if isinstance(subject, Ticket):
        if event.fencing_token:
            raise _stale(event.fencing_token)
        _take_back(state, subject, event.call, now)
    elif isinstance(subject, Lease):
        _check_owner(subject, event.caller)
        _check_token(subject.token, event.fencing_token)
        lingers = bool(subject.terms.ttl)
        _answer(state, event.call, _let_go(state, subject, now, event.report), already=False, lingers=lingers)
    else:
        _check_principal(subject.key.identity, event.caller)
        _check_token(subject.token, event.fencing_token)
        _answer(state, event.call, subject, already=True)


def cancel_stream(state: State, event: CancelStream, now: float) -> None:
    """Takes back what another call of the same session asked for."""
    subject = state.calls.get(event.acquire)
    if subject is None:
        record = _never_held(RequestKey(Identity("", ""), ""), now)
        _answer(state, event.call, record, already=True)
    elif isinstance(subject, Ticket):
        _take_back(state, subject, event.call, now)
    else:
        lingers = bool(subject.terms.ttl)
        _answer(state, event.call, _let_go(state, subject, now, None), already=False, lingers=lingers)


def renew(state: State, event: Renew, now: float) -> None:
    """Starts the ttl again; with extend_hold, moves the hold too, within max_hold_limit."""
    lease = _live(state, event.lease_id, event.caller, event.fencing_token)
    _check_claim(state, lease)
    if state.timers.when((Clock.PATIENCE, lease)) is not None and lease.patience:
        start_patience(state, lease, now)
    claims = claim(state, lease)
    if event.extend_hold is not None:
        until = now + event.extend_hold
        if lease.terms.max_hold_limit:
            until = min(until, lease.granted_at + lease.terms.max_hold_limit)
        set_hold(state, lease, max(now, until))
    pending = lease.pending_yield
    asked = None
    if pending is not None:
        reason, standing = pending
        grace = None if standing.until is None else max(0.0, standing.until - now)
        asked = PendingYield(reason, grace, standing.detail)
    hold = None if lease.hold_until is None else max(0.0, lease.hold_until - now)
    state.emit(Renewed(event.call, ttl_remaining(state, lease, now), hold, asked, claims))
    state.record(EventType.RENEWED, lease)
    state.changed = True


def resize(state: State, event: Resize, now: float) -> None:
    """Changes what a lease has committed, if that would be admitted now; otherwise nothing changes."""
    lease = _live(state, event.lease_id, event.caller, event.fencing_token)
    check_journal(state)
    sharing = event.sharing or lease.sharing
    plan = [(gpu, share, _wanted(lease, share, event)) for gpu, share in lease.shares]
    for gpu, share, wanted in plan:
        _check_room(gpu, share, wanted, sharing, refuse_when_stale=state.settings.memory.refuse_when_stale)
    for gpu, share, wanted in plan:
        share.declared = share.committed = wanted
        if share.peak is not None and share.peak > wanted:
            share.committed = int(share.peak * PEAK_MARGIN)
        if not wanted and sharing is Sharing.EXCLUSIVE:
            share.committed = max(0, gpu.capacity - gpu.unleased)
        share.exclusive = sharing is Sharing.EXCLUSIVE
        gpu.settle()
    lease.sharing = sharing
    state.touch(lease)
    state.emit(Resized(event.call, lease_view(state, lease, now)))
    state.record(EventType.RESIZED, lease, detail=f"{sharing.name}, {plan[0][2]} bytes a GPU")
    state.dirty = state.changed = True


def check_fence(state: State, event: CheckFence, _now: float) -> None:
    """Whether a live lease on a GPU has this token."""
    gpu = state.gpu(event.gpu)
    current = any(state.leases.live[lease_id].token == event.fencing_token for lease_id in gpu.shares)
    state.emit(FenceChecked(event.call, current, gpu.newest_token))


def report_work(state: State, event: ReportWork, _now: float) -> None:
    """Passes on what a client tells of work that had no lease."""
    state.emit(
        Recorded(
            EventType.WORK_REPORTED,
            task_type=event.task_type,
            holder=event.holder,
            detail=f"{event.report.result.name} on {event.report.device.name}",
            report=event.report,
            context=event.context,
        )
    )
    state.emit(Done(event.call))


# -- whom it concerns --


def _target(state: State, event: Release) -> Ticket | Lease | EndedRecord:
    """What a release names; ArbiterError UNKNOWN_LEASE when it is nothing of ours."""
    if event.lease_id:
        return state.leases.live.get(event.lease_id) or _ended(state, event.lease_id)
    principal, client_id = event.caller.principal, event.caller.client_id
    if client_id:
        own = state.requests.get(RequestKey(Identity(principal, client_id), event.request_id))
        live = [] if own is None else [own]
    else:
        live = state.requests.of_principal(principal, event.request_id)
    if len(live) > 1:
        raise invalid(Violation("request_id", "names requests of several clients; release by lease_id"))
    if live:
        return live[0]
    record = state.leases.ended_request(principal, client_id, event.request_id)
    if record is None:
        raise unknown_lease(event.request_id)
    return record


def _ended(state: State, lease_id: str) -> EndedRecord:
    """What is known of a lease that is over; ArbiterError UNKNOWN_LEASE when it never was one."""
    record = state.leases.ended(lease_id)
    if record is not None:
        return record
    if not state.leases.issued(lease_id):
        raise unknown_lease(lease_id)
    # Ours, but so long ago that nothing else is known of it.
    return EndedRecord(lease_id, RequestKey(Identity("", ""), ""), 0, EndReason.UNSPECIFIED, 0.0, 0.0)


def _live(state: State, lease_id: str, caller: Caller, token: int) -> Lease:
    """A lease that is still held, by its owner's word and token."""
    lease = state.leases.live.get(lease_id)
    if lease is None:
        record = _ended(state, lease_id)
        _check_principal(record.key.identity, caller)
        message = f"lease {lease_id} has ended: {record.reason.name}"
        raise ArbiterError(ErrorReason.LEASE_ENDED, message, metadata={"end_reason": record.reason.name})
    _check_owner(lease, caller)
    _check_token(lease.token, token)
    return lease


def _check_claim(state: State, lease: Lease) -> None:
    """That a holder is back counts once it is written: until then the next restart would end its lease."""
    if lease.recover_until is not None:
        check_journal(state)


def _check_owner(lease: Lease, caller: Caller) -> None:
    _check_principal(lease.ticket.key.identity, caller)


def _check_principal(identity: Identity, caller: Caller) -> None:
    if identity.principal and identity.principal != caller.principal and not caller.admin:
        raise ArbiterError(ErrorReason.NOT_PERMITTED, "the lease belongs to another identity")


def _check_token(token: int, claimed: int) -> None:
    if claimed and token and claimed != token:
        raise _stale(claimed)


def _stale(claimed: int) -> ArbiterError:
    return ArbiterError(
        ErrorReason.STALE_TOKEN,
        f"{claimed} is not the fencing token of this lease",
        metadata={"fencing_token": str(claimed)},
    )


# -- ends --


def _let_go(state: State, lease: Lease, now: float, report: WorkReport | None) -> EndedRecord:
    """The holder's own word."""
    reason = EndReason.YIELDED if lease.pending_yield else EndReason.RELEASED
    return finish(state, lease, reason, now, report=report)


def _take_back(state: State, ticket: Ticket, call: Call, now: float) -> None:
    take_back(state, ticket, now)
    _answer(state, call, _never_held(ticket.key, now), already=False)


def _never_held(key: RequestKey, now: float) -> EndedRecord:
    return EndedRecord("", key, 0, EndReason.CANCELLED, held=0.0, ended_at=now)


def _answer(state: State, call: Call, record: EndedRecord, *, already: bool, lingers: bool = False) -> None:
    state.emit(Released(call, record.reason, record.held, already, record.verdict, record.peak, lingers))


# -- resizing --


def _wanted(lease: Lease, share: Share, event: Resize) -> int:
    """What a share is to declare; ArbiterError RESIZE_REFUSED where it cannot be told."""
    if event.memory_bytes is not None:
        return event.memory_bytes
    if event.sharing is Sharing.SHARED and lease.sharing is Sharing.EXCLUSIVE:
        if share.peak is None:
            raise _refused("to share without memory_bytes needs an observed peak, and there is none")
        return int(share.peak * PEAK_MARGIN)
    return share.declared


def _check_room(gpu: Gpu, share: Share, wanted: int, sharing: Sharing, *, refuse_when_stale: bool) -> None:
    """Whether a share could be of this size now."""
    if sharing is Sharing.EXCLUSIVE and len(gpu.shares) > 1:
        raise _refused(f"{gpu.key} has other leases on it")
    grows = wanted > share.committed
    if grows and refuse_when_stale and gpu.stale:
        raise _refused(f"there is no current reading of {gpu.key}")
    room = gpu.room() + share.committed
    if grows and wanted > room:
        raise _refused(f"{wanted} bytes do not fit on {gpu.key}: {max(0, room)} bytes are admissible")


def _refused(message: str) -> ArbiterError:
    return ArbiterError(ErrorReason.RESIZE_REFUSED, message)
