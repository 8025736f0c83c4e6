"""The state of the arbiter as a message of the contract."""

from gpuarbiter.v1 import snapshot_pb2
from gpuarbiter_server.api.convert_out import Converter, holder, work_context
from gpuarbiter_server.api.status import duration, number
from gpuarbiter_server.core.events import Caller
from gpuarbiter_server.core.views import GpuView, SnapshotView, StatsView, TicketView
from gpuarbiter_server.runtime.about import About

_MOST = 2**64 - 1


def arbiter_snapshot(
    view: SnapshotView, convert: Converter, about: About, caller: Caller, *, processes: bool
) -> snapshot_pb2.ArbiterSnapshot:
    """The whole state, as far as the caller may see it."""
    return snapshot_pb2.ArbiterSnapshot(
        revision=view.revision,
        snapshot_time=convert.wall_time(view.taken_at),
        instance_id=about.instance_id,
        version=about.version,
        start_time=convert.wall_time(about.started_at),
        nvml_up=view.nvml_up,
        draining=view.draining,
        gpus=[_gpu(gpu, convert, processes=processes) for gpu in view.gpus],
        epoch=about.epoch,
        recovering=view.recovering,
        node=convert.node,
        leases=[
            convert.lease(lease, show_id=caller.admin or lease.principal == caller.principal) for lease in view.leases
        ],
        queue=[_ticket(ticket, convert) for ticket in view.queue],
        queue_length=view.queue_length,
    )


def _gpu(view: GpuView, convert: Converter, *, processes: bool) -> snapshot_pb2.GpuSnapshot:
    spec = view.spec
    message = snapshot_pb2.GpuSnapshot(
        key=spec.key,
        uuid=spec.uuid,
        index=spec.index,
        name=spec.name,
        health=number(view.health),
        cordoned=view.cordoned,
        pressure=snapshot_pb2.PRESSURE_NORMAL,
        memory=snapshot_pb2.GpuMemory(
            total_bytes=spec.total_bytes,
            headroom_bytes=view.headroom_bytes,
            # Without limits (enabled: false) promises may add up to more than a field can say.
            committed_bytes=min(view.committed_bytes, _MOST),
            unleased_bytes=view.unleased_bytes,
            admissible_bytes=view.admissible_bytes,
        ),
        lease_ids=view.lease_ids,
        queue_length=view.queue_length,
        queue_limit=view.queue_limit,
        stats=_stats(view.stats),
        parent_uuid=spec.parent_uuid,
    )
    if view.reading is not None:
        message.sample.CopyFrom(_sample(view, convert))
        if processes:
            message.processes.extend(_processes(view))
    if view.cooldown_remaining is not None:
        message.cooldown_remaining.CopyFrom(duration(view.cooldown_remaining))
    return message


def _sample(view: GpuView, convert: Converter) -> snapshot_pb2.GpuSample:
    reading = view.reading
    if reading is None:
        raise ValueError("there is no reading")
    return snapshot_pb2.GpuSample(
        sample_time=convert.wall_time(reading.time),
        memory_used_bytes=reading.memory_used_bytes,
        memory_free_bytes=reading.memory_free_bytes,
        utilization_ratio=reading.utilization_ratio,
        memory_bandwidth_ratio=reading.memory_bandwidth_ratio,
        power_watts=reading.power_watts,
        power_limit_watts=reading.power_limit_watts,
        temperature_celsius=reading.temperature_celsius,
        sm_clock_hertz=reading.sm_clock_hertz,
    )


def _processes(view: GpuView) -> list[snapshot_pb2.GpuProcess]:
    owners = dict(view.owners)
    listed = (view.reading.processes if view.reading else None) or ()
    return [
        snapshot_pb2.GpuProcess(
            pid=seen.process.pid,
            name=seen.name,
            memory_used_bytes=seen.used_bytes or 0,
            lease_id=owners.get(seen.process, ""),
        )
        for seen in listed
    ]


def _stats(view: StatsView) -> snapshot_pb2.GpuStats:
    message = snapshot_pb2.GpuStats(
        granted_total=view.granted,
        declined_total=view.declined,
        timed_out_total=view.timed_out,
        watchdog_total=view.watchdog,
    )
    for name in ("queue_wait_p50", "queue_wait_p95", "hold_p50", "hold_p95"):
        value = getattr(view, name)
        if value is not None:
            getattr(message, name).CopyFrom(duration(value))
    return message


def _ticket(view: TicketView, convert: Converter) -> snapshot_pb2.Ticket:
    message = snapshot_pb2.Ticket(
        request_id=view.request_id,
        task_type=view.task_type,
        holder=holder(view.holder),
        priority=view.priority,
        position=view.position,
        reason=number(view.reason),
        enqueue_time=convert.wall_time(view.enqueued_at),
        memory_bytes=view.memory_bytes,
        sharing=number(view.sharing),
        context=work_context(view.context),
        candidates=view.candidates,
        count=view.count,
    )
    if view.wait_deadline_at is not None:
        message.wait_deadline.CopyFrom(convert.wall_time(view.wait_deadline_at))
    return message
