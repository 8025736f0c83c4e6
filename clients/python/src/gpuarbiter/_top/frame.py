"""One frame of the live view.

Law: pure. A frame has at most as many lines as the screen and each is at most as wide; what does not fit is
counted ("… and 12 more"), and what is not known is a dash, never a zero.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from gpuarbiter._convert import enum_name, marks_of, optional_timedelta
from gpuarbiter._top import gpus, text
from gpuarbiter._top.gpus import NONE, Rates
from gpuarbiter._top.text import BOLD, DIM, RED, YELLOW, Line, Part
from gpuarbiter._units import format_bytes, format_duration
from gpuarbiter.v1 import lease_pb2, snapshot_pb2

Snapshot = snapshot_pb2.ArbiterSnapshot
_SHAPES: tuple[tuple[int, Callable[[gpus.Gpu, Rates, int], list[Line]]], ...] = (
    (5, gpus.full),
    (2, gpus.short),
    (1, gpus.tiny),
)
# Lines that leases and queue want at least, with their heads and the blank lines before them.
_BELOW = 10


def render(
    snapshot: Snapshot,
    previous: Snapshot | None,
    now: datetime,
    width: int,
    height: int,
    *,
    notice: str = "",
    colour: bool = False,
) -> list[str]:
    """The lines of a frame.

    Args:
        snapshot: the newest state.
        previous: an earlier one, to tell rates from; None: they are not known.
        now: the arbiter's time, which may be later than that of the snapshot.
        width: columns of the screen.
        height: lines of the screen.
        notice: what people should know first, such as that the arbiter is away.
        colour: whether to use colours.
    """
    lines: list[Line] = [_head(snapshot, now), *([[Part(notice, RED)]] if notice else [])]
    lines += _gpus(snapshot, previous, now, width, height - len(lines) - _BELOW)
    leases = _leases(snapshot, now, width)
    queue = _queue(snapshot, now, width)
    left = height - len(lines) - 2
    for_leases = min(len(leases), max(left // 2, left - len(queue)))
    lines += [[], *_fit(leases, for_leases, len(leases) - 1)]
    waiting = max(len(queue) - 1, snapshot.queue_length)
    lines += [[], *_fit(queue, height - len(lines) - 1, waiting)]
    return [text.paint(line, width, colour=colour) for line in lines[:height]]


def _fit(lines: Sequence[Line], room: int, total: int) -> list[Line]:
    """A head and rows in the room that there is; of `total` rows, the missing are counted."""
    shown = len(lines) - 1
    if len(lines) <= room and total <= shown:
        return list(lines)
    shown = max(0, min(shown, room - 2))
    return [*lines[: shown + 1], [Part(f"{text.ELLIPSIS} and {total - shown} more", DIM)]]


def _head(snapshot: Snapshot, now: datetime) -> Line:
    facts = [
        f"version {snapshot.version or NONE}",
        f"up {_since(snapshot, 'start_time', now)}",
        f"{len(snapshot.leases)} held",
        f"{snapshot.queue_length} waiting",
        f"{now:%H:%M:%S}Z",
    ]
    node = Part(snapshot.node or "arbiter", BOLD)
    return [node, Part("  " + "  ".join(facts)), *(Part(f"  [{mark}]", YELLOW) for mark in marks_of(snapshot))]


def _gpus(snapshot: Snapshot, previous: Snapshot | None, now: datetime, width: int, room: int) -> list[Line]:
    """In the largest form in which all fit; in the smallest as many as fit."""
    count = len(snapshot.gpus)
    size, shape = next((each for each in _SHAPES if each[0] * count <= room), _SHAPES[-1])
    shown = count if size * count <= room else max(1, room - 1)
    lines = [line for gpu in snapshot.gpus[:shown] for line in shape(gpu, rates(gpu, snapshot, previous, now), width)]
    missing = count - min(shown, count)
    return [*lines, [Part(f"{text.ELLIPSIS} and {missing} more GPUs", DIM)]] if missing else lines


def rates(gpu: gpus.Gpu, snapshot: Snapshot, previous: Snapshot | None, now: datetime) -> Rates:
    """Per second, from an earlier state of the same run of the arbiter until now."""
    if previous is None or (previous.epoch, previous.instance_id) != (snapshot.epoch, snapshot.instance_id):
        return Rates()
    before = next((each.stats for each in previous.gpus if each.key == gpu.key), None)
    elapsed = (now - _moment(previous, "snapshot_time")).total_seconds()
    if before is None or elapsed <= 0:
        return Rates()
    grown = [
        getattr(gpu.stats, name) - getattr(before, name)
        for name in ("granted_total", "declined_total", "timed_out_total")
    ]
    return Rates(*(None if each < 0 else each / elapsed for each in grown))


_LEASE_COLUMNS = ("TASK", "CLIENT", "GPUS", "HELD", "LEFT", "DECLARED", "SEEN", "STATE")


def _leases(snapshot: Snapshot, now: datetime, width: int) -> list[Line]:
    rows = [_lease(each, snapshot, now) for each in snapshot.leases]
    return text.table(_LEASE_COLUMNS, rows, width, elastic=(0, 1, 2)) if rows else [[Part("no leases", DIM)]]


def _lease(lease: lease_pb2.Lease, snapshot: Snapshot, now: datetime) -> Sequence[str]:
    left = optional_timedelta(lease, "hold_remaining")
    if left is not None:
        left -= max(timedelta(0), now - _moment(snapshot, "snapshot_time"))
    declared = sum(gpu.declared_bytes for gpu in lease.gpus)
    seen = [gpu.observed_bytes for gpu in lease.gpus if gpu.HasField("observed_bytes")]
    return (
        lease.task_type,
        lease.holder.client_id or NONE,
        ",".join(gpu.key for gpu in lease.gpus),
        _since(lease, "grant_time", now),
        NONE if left is None else format_duration(max(timedelta(0), left)),
        format_bytes(declared) if declared else NONE,
        format_bytes(sum(seen)) if seen else NONE,
        enum_name(lease_pb2.LeaseState, lease.state) or NONE,
    )


_QUEUE_COLUMNS = ("#", "TASK", "CLIENT", "GPUS", "MEMORY", "WAITED", "REASON")


def _queue(snapshot: Snapshot, now: datetime, width: int) -> list[Line]:
    rows = [_ticket(each, now) for each in snapshot.queue]
    return text.table(_QUEUE_COLUMNS, rows, width, elastic=(1, 2, 3)) if rows else [[Part("nobody waits", DIM)]]


def _ticket(ticket: snapshot_pb2.Ticket, now: datetime) -> Sequence[str]:
    return (
        str(ticket.position),
        ticket.task_type,
        ticket.holder.client_id or NONE,
        f"{ticket.count or 1} of {','.join(ticket.candidates) or 'any'}",
        format_bytes(ticket.memory_bytes) if ticket.memory_bytes else NONE,
        _since(ticket, "enqueue_time", now),
        enum_name(lease_pb2.WaitReason, ticket.reason) or NONE,
    )


def _moment(message: Any, field: str) -> datetime:
    moment: datetime = getattr(message, field).ToDatetime(tzinfo=UTC)
    return moment


def _since(message: Any, field: str, now: datetime) -> str:
    return format_duration(max(timedelta(0), now - _moment(message, field))) if message.HasField(field) else NONE
