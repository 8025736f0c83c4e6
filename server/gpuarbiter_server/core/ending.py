"""How a lease ends: by its holder's word, by a rule, or by an operator.

Law: everything that a lease had is given back here and nowhere else, and its stream, if one is there,
gets its one terminal effect.
"""

from gpuarbiter_server.core import cooldown
from gpuarbiter_server.core.appetite import eater_of, judged, peak_of
from gpuarbiter_server.core.effects import Ended
from gpuarbiter_server.core.leases import Lease
from gpuarbiter_server.core.model import EndReason, EventType, WorkReport, WorkResult, YieldReason
from gpuarbiter_server.core.offering import detach_from_gpus, withhold
from gpuarbiter_server.core.records import EndedRecord
from gpuarbiter_server.core.state import State


def finish(
    state: State,
    lease: Lease,
    reason: EndReason,
    now: float,
    *,
    detail: str = "",
    cause: YieldReason | None = None,
    report: WorkReport | None = None,
    delivered: bool = True,
) -> EndedRecord:
    """Ends a lease and returns what is kept of it.

    cause: the yield request that led to it; None: the one that stands, if one does. delivered: False when
    its Granted was never sent, so that there is nothing to cool down from.
    """
    if not lease.offered:
        return withhold(state, lease, detail or f"it ended before it was offered: {reason.name}", now)
    if cause is None:
        cause = lease.pending_yield[0] if lease.pending_yield else YieldReason.UNSPECIFIED
    report = judged(lease, reason, report)
    if report is not None and report.peak_memory_bytes:
        for _, share in lease.shares:
            share.peak = max(share.peak or 0, report.peak_memory_bytes)
    if report is not None and report.result is WorkResult.OUT_OF_MEMORY:
        state.appetites.ran_out(eater_of(lease), peak_of(lease))
    record = EndedRecord(
        lease.lease_id,
        lease.ticket.key,
        lease.token,
        reason,
        held=now - lease.granted_at,
        ended_at=now,
        detail=detail,
        cause=cause,
        verdict=lease.verdict(),
        peak=lease.peak_bytes(),
    )
    detach_from_gpus(state, lease, now, used=delivered)
    if delivered:
        for gpu, share in lease.shares:
            cooldown.start(state, lease, gpu, share, reason, now)
    state.close(record)
    state.requests.remove(lease.ticket.key)
    state.disown(lease.ticket.process)
    if lease.call is not None:
        state.calls.pop(lease.call, None)
    if lease.listener is not None:
        state.emit(ended_effect(lease.listener, record))
    state.record(
        EventType.ENDED,
        lease,
        detail=detail,
        held=record.held,
        waited=lease.queue_wait,
        end_reason=reason,
        yield_reason=cause,
        report=report,
        memory_peak_bytes=record.peak,
    )
    state.ready_again(state.gates.ended(lease.ticket))
    state.changed = True
    return record


def ended_effect(call: int, record: EndedRecord) -> Ended:
    """Tells a stream that its lease is over."""
    return Ended(call, record.reason, record.held, record.detail, record.cause, record.verdict, record.peak)
