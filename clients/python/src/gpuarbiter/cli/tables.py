"""A snapshot as text for people.

Law: pure; nothing is cut, least of all a UUID, and what is not known is a dash, never a zero.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from gpuarbiter._convert import enum_name, marks_of, optional_timedelta
from gpuarbiter._units import format_bytes, format_duration
from gpuarbiter.v1 import lease_pb2, snapshot_pb2

NONE = "-"


def render(snapshot: snapshot_pb2.ArbiterSnapshot, *, processes: bool = False) -> str:
    """Head line, GPUs, leases, queue, and if asked for the processes on the GPUs."""
    parts = [_head(snapshot), table(_GPU_COLUMNS, [_gpu(each) for each in snapshot.gpus])]
    leases = [_lease(each, snapshot) for each in snapshot.leases]
    parts.append(table(_LEASE_COLUMNS, leases) if leases else "no leases")
    tickets = [_ticket(each, snapshot) for each in snapshot.queue]
    parts.append(table(_QUEUE_COLUMNS, tickets) if tickets else "nobody waits")
    if snapshot.queue_length > len(tickets):
        parts[-1] += f"\nand {snapshot.queue_length - len(tickets)} more"
    if processes:
        rows = [_process(gpu.key, each) for gpu in snapshot.gpus for each in gpu.processes]
        parts.append(table(_PROCESS_COLUMNS, rows) if rows else "no processes")
    return "\n\n".join(parts) + "\n"


def _head(snapshot: snapshot_pb2.ArbiterSnapshot) -> str:
    up = _between(snapshot, "start_time", snapshot)
    return (
        f"{snapshot.node or 'arbiter'}  version {snapshot.version or NONE}  epoch {snapshot.epoch}  "
        f"revision {snapshot.revision}  up {up}" + "".join(f"  [{mark}]" for mark in marks_of(snapshot))
    )


_GPU_COLUMNS = (
    *("GPU", "UUID", "NAME", "STATE"),
    *("USED", "COMMITTED", "UNLEASED", "HEADROOM", "ADMISSIBLE", "TOTAL"),
    *("UTIL", "LEASES", "QUEUE"),
)


def _gpu(gpu: snapshot_pb2.GpuSnapshot) -> Sequence[str]:
    state = [enum_name(snapshot_pb2.GpuHealth, gpu.health) or NONE]
    state += ["cordoned"] if gpu.cordoned else []
    state += ["pressure"] if gpu.pressure == snapshot_pb2.PRESSURE_HIGH else []
    cooldown = optional_timedelta(gpu, "cooldown_remaining")
    state += [] if cooldown is None else [f"cooldown {format_duration(cooldown)}"]
    memory, sample = gpu.memory, gpu.sample
    used = format_bytes(sample.memory_used_bytes) if sample.HasField("memory_used_bytes") else NONE
    busy = f"{sample.utilization_ratio:.0%}" if sample.HasField("utilization_ratio") else NONE
    ledger = [
        format_bytes(figure) if gpu.HasField("memory") else NONE
        for figure in (
            memory.committed_bytes,
            memory.unleased_bytes,
            memory.headroom_bytes,
            memory.admissible_bytes,
            memory.total_bytes,
        )
    ]
    names = [gpu.key, gpu.uuid or NONE, gpu.name or NONE, " ".join(state)]
    return [*names, used, *ledger, busy, str(len(gpu.lease_ids)), f"{gpu.queue_length}/{gpu.queue_limit}"]


_LEASE_COLUMNS = ("LEASE", "TASK", "HOLDER", "GPUS", "COMMITTED", "SHARING", "STATE", "PRIORITY", "HELD", "HOLD LEFT")


def _lease(lease: lease_pb2.Lease, snapshot: snapshot_pb2.ArbiterSnapshot) -> Sequence[str]:
    left = optional_timedelta(lease, "hold_remaining")
    return [
        lease.lease_id or NONE,
        lease.task_type,
        _holder(lease.holder),
        ",".join(gpu.key for gpu in lease.gpus),
        format_bytes(sum(gpu.committed_bytes for gpu in lease.gpus)),
        enum_name(lease_pb2.Sharing, lease.sharing) or NONE,
        enum_name(lease_pb2.LeaseState, lease.state) or NONE,
        str(lease.priority),
        _between(lease, "grant_time", snapshot),
        NONE if left is None else format_duration(left),
    ]


_QUEUE_COLUMNS = ("POSITION", "REQUEST", "TASK", "HOLDER", "GPUS", "MEMORY", "PRIORITY", "REASON", "WAITED")


def _ticket(ticket: snapshot_pb2.Ticket, snapshot: snapshot_pb2.ArbiterSnapshot) -> Sequence[str]:
    return [
        str(ticket.position),
        ticket.request_id or NONE,
        ticket.task_type,
        _holder(ticket.holder),
        f"{ticket.count or 1} of {','.join(ticket.candidates) or 'any'}",
        format_bytes(ticket.memory_bytes) if ticket.memory_bytes else NONE,
        str(ticket.priority),
        enum_name(lease_pb2.WaitReason, ticket.reason) or NONE,
        _between(ticket, "enqueue_time", snapshot),
    ]


_PROCESS_COLUMNS = ("GPU", "PID", "PROCESS", "USED", "LEASE", "POD")


def _process(gpu: str, process: snapshot_pb2.GpuProcess) -> Sequence[str]:
    pod = f"{process.namespace}/{process.pod}" if process.pod else NONE
    used = format_bytes(process.memory_used_bytes)
    return [gpu, str(process.pid), process.name or NONE, used, process.lease_id or NONE, pod]


def _holder(holder: lease_pb2.Holder) -> str:
    return holder.client_id or NONE


def _between(message: Any, field: str, snapshot: snapshot_pb2.ArbiterSnapshot) -> str:
    """From a time in a message to the time of the snapshot; both are the arbiter's clock."""
    if not (message.HasField(field) and snapshot.HasField("snapshot_time")):
        return NONE
    elapsed = snapshot.snapshot_time.ToDatetime() - getattr(message, field).ToDatetime()
    return format_duration(max(timedelta(0), elapsed))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under their names, as wide as they need to be."""
    widths = [max(len(row[place]) for row in (columns, *rows)) for place in range(len(columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (columns, *rows)]
    return "\n".join(line.rstrip() for line in lines)
