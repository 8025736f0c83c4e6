"""Frozen views of the state, for answers, dashboards and observers. Reads everything, changes nothing."""

from itertools import islice

from gpuarbiter_server.core.clocks import ttl_remaining
from gpuarbiter_server.core.explain import wait_reason
from gpuarbiter_server.core.leases import Lease
from gpuarbiter_server.core.ledger import Gpu
from gpuarbiter_server.core.state import State
from gpuarbiter_server.core.ticket import Ticket
from gpuarbiter_server.core.views import GpuView, GrantView, LeaseView, SnapshotView, TicketView


def lease_view(state: State, lease: Lease, now: float) -> LeaseView:
    """A lease as it stands."""
    request = lease.ticket.request
    return LeaseView(
        lease_id=lease.lease_id,
        fencing_token=lease.token,
        request_id=lease.ticket.key.request_id,
        task_type=request.task_type,
        holder=request.holder,
        principal=request.principal,
        gpus=tuple(
            GrantView(gpu.spec, share.declared, share.committed, share.observed, share.peak)
            for gpu, share in lease.shares
        ),
        sharing=lease.sharing,
        priority=lease.terms.priority,
        state=lease.state,
        queue_wait=lease.queue_wait,
        granted_at=lease.granted_at,
        hold_remaining=None if lease.hold_until is None else max(0.0, lease.hold_until - now),
        ttl_remaining=ttl_remaining(state, lease, now),
        ttl=lease.terms.ttl,
        context=request.context,
    )


def ticket_view(state: State, ticket: Ticket) -> TicketView:
    """A waiting request as it stands."""
    request = ticket.request
    return TicketView(
        request_id=ticket.key.request_id,
        task_type=request.task_type,
        holder=request.holder,
        principal=request.principal,
        priority=ticket.terms.priority,
        position=state.queue.position(ticket),
        reason=wait_reason(state, ticket),
        enqueued_at=ticket.enqueued_at,
        wait_deadline_at=ticket.deadline,
        memory_bytes=ticket.terms.memory_bytes,
        sharing=ticket.terms.sharing,
        context=request.context,
        candidates=tuple(gpu.key for gpu in ticket.gpus),
        count=request.gpu.count,
    )


def gpu_view(state: State, gpu: Gpu, now: float) -> GpuView:
    """A GPU as it stands."""
    return GpuView(
        spec=gpu.spec,
        health=gpu.health,
        cordoned=gpu.cordon is not None,
        headroom_bytes=gpu.headroom,
        committed_bytes=gpu.committed,
        unleased_bytes=gpu.unleased,
        admissible_bytes=gpu.admissible,
        reading=gpu.reading,
        lease_ids=tuple(gpu.shares),
        queue_length=state.queue.length(gpu.key),
        queue_limit=state.settings.queue_limit,
        stats=gpu.stats.view(),
        cooldown_remaining=gpu.cooldown.remaining(now) if gpu.cooldown else None,
        owners=gpu.owners(),
        out_of_service=gpu.lost or gpu.cordon or "",
    )


def snapshot(state: State, now: float, *, gpus: tuple[str, ...] = (), max_tickets: int = 100) -> SnapshotView:
    """The whole state; gpus: names of those to show, all where there are none."""
    shown = state.pick(gpus, everything=not gpus)
    return SnapshotView(
        revision=state.revision,
        taken_at=now,
        nvml_up=state.nvml_up,
        recovering=any(lease.recover_until is not None for lease in state.leases.live.values()),
        draining=state.shutting_down or all(gpu.cordon is not None for gpu in state.gpus.values()),
        gpus=tuple(gpu_view(state, gpu, now) for gpu in shown),
        leases=tuple(lease_view(state, lease, now) for lease in state.leases.live.values()),
        queue=tuple(ticket_view(state, ticket) for ticket in islice(state.queue.in_order(), max_tickets)),
        queue_length=len(state.queue),
    )
