"""A history as a trace that Perfetto (ui.perfetto.dev) and chrome://tracing open: the JSON trace-event format.

Law: slices of one row never overlap, and an arrow begins and ends inside the slices that it connects.
Times are microseconds since the epoch. The format:
https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gpuarbiter._convert import enum_name
from gpuarbiter._trail import lanes, spans
from gpuarbiter._trail.spans import Event, Span
from gpuarbiter.v1 import admin_pb2

TraceEvent = dict[str, Any]

_GPUS, _QUEUE, _ARBITER = 1, 2, 3
_PROCESSES = {_GPUS: "GPUs", _QUEUE: "Queue", _ARBITER: "Arbiter"}
# A slice lasts at least so many microseconds: an arrow's end has to lie within it, not on its edge, where
# viewers differ about which of two slices it belongs to.
_SHORTEST = 2
_SECOND = 1_000_000


def lines(events: Iterable[Event]) -> Iterator[str]:
    """The text of the trace, a line for each of its events."""
    yield '{"displayTimeUnit":"ms","traceEvents":['
    made = trace_events(spans.read(events))
    for place, event in enumerate(made, start=1):
        yield json.dumps(event, separators=(",", ":")) + ("," if place < len(made) else "")
    yield "]}"


def trace_events(trail: spans.Trail) -> list[TraceEvent]:
    """The names of processes and rows, then slices, moments and arrows in the order of time."""
    rows = _Rows()
    for gpu in sorted({gpu for event, _ in trail.moments for gpu in event.gpus}, key=_natural):
        rows.expect(_GPUS, gpu)
    slices = _slices(_QUEUE, trail.waits, lambda span: [span.event.task_type or "?"], rows)
    held = _slices(_GPUS, trail.leases, lambda span: span.gpus or ["?"], rows)
    slices.update(held)
    made: list[TraceEvent] = []
    for (_, row), (span, tid, pid) in slices.items():
        made.append(_slice(span, pid, tid, row))
    made += _arrows(trail.leases, slices)
    for event, lease in trail.moments:
        made += _moments(event, lease, slices, rows)
    # Viewers take events of one time in the order of the file: a slice has to be there before what is in it.
    made.sort(key=lambda each: (each["ts"], "Xsif".index(each["ph"]), -each.get("dur", 0)))
    return [*rows.metadata(), *made]


_Slices = dict[tuple[int, str], tuple[Span, int, int]]


def _slices(pid: int, found: Sequence[Span], rows_of: Any, rows: "_Rows") -> _Slices:
    """Each span on its row of each of its names, by the span's identity and that name."""
    named: dict[str, list[Span]] = {}
    for span in found:
        for row in rows_of(span):
            named.setdefault(row, []).append(span)
    made: _Slices = {}
    for row in sorted(named, key=_natural):
        places = lanes.assign([(span.begin, span.begin + _length(span)) for span in named[row]])
        for span, lane in zip(named[row], places, strict=True):
            made[id(span), row] = (span, rows.tid(pid, row, lane), pid)
    return made


def _length(span: Span) -> int:
    end = span.begin if span.end is None else span.end
    return max(end - span.begin, _SHORTEST)


def _slice(span: Span, pid: int, tid: int, row: str) -> TraceEvent:
    held = pid == _GPUS
    arguments = _arguments(span.event) | {"gpu": row if held else " ".join(span.gpus) or "any"}
    if held and span.wait is not None:
        arguments["wait_seconds"] = _seconds(span.wait)
    arguments["hold_seconds" if held else "wait_seconds"] = _seconds(span)
    # Why it waited, or how the lease ended.
    arguments["reason"] = span.outcome if held else span.event.detail
    if not held:
        arguments["outcome"] = span.outcome
    if span.marks:
        arguments["mark"] = ", ".join(span.marks)
    name = (span.event.task_type or "lease") + "".join(f" ({mark})" for mark in span.marks)
    return {
        "ph": "X",
        "name": name,
        "cat": "lease" if held else "wait",
        "pid": pid,
        "tid": tid,
        "ts": span.begin,
        "dur": _length(span),
        "args": arguments,
    }


def _arrows(leases: Sequence[Span], slices: _Slices) -> Iterator[TraceEvent]:
    """From the wait of a request to its lease, on each GPU."""
    number = 0
    for lease in leases:
        wait = lease.wait
        if wait is None:
            continue
        _, from_tid, _ = slices[id(wait), wait.event.task_type or "?"]
        begin, end = wait.begin + _length(wait) - 1, lease.begin + 1
        if end < begin:  # the clock was set back in between
            continue
        for gpu in lease.gpus or ("?",):
            number += 1
            _, to_tid, _ = slices[id(lease), gpu]
            common = {"name": "granted", "cat": "grant", "id": number}
            yield {"ph": "s", **common, "pid": _QUEUE, "tid": from_tid, "ts": begin}
            # bp e: it ends in the slice around it, not in the next one.
            yield {"ph": "f", "bp": "e", **common, "pid": _GPUS, "tid": to_tid, "ts": end}


def _moments(event: Event, lease: Span | None, slices: _Slices, rows: "_Rows") -> Iterator[TraceEvent]:
    """An instant on the row of each GPU that it is about, beside its lease if that lives; or on the arbiter's."""
    where = []
    for gpu in dict.fromkeys(event.gpus):
        found = slices.get((id(lease), gpu))
        where.append((_GPUS, rows.tid(_GPUS, gpu, 0) if found is None else found[1]))
    for pid, tid in where or [(_ARBITER, rows.tid(_ARBITER, "arbiter", 0))]:
        yield {
            "ph": "i",
            "s": "t" if pid == _GPUS else "g",
            "name": enum_name(admin_pb2.EventType, event.type),
            "cat": "event",
            "pid": pid,
            "tid": tid,
            "ts": spans.moment_of(event),
            "args": _arguments(event) | ({"detail": event.detail} if event.detail else {}),
        }


def _arguments(event: Event) -> dict[str, Any]:
    facts = {
        "lease": event.lease_id,
        "request": event.request_id,
        "task": event.task_type,
        "client": event.holder.client_id,
        "fencing_token": event.fencing_token,
    }
    return {"sequence": event.sequence} | {name: fact for name, fact in facts.items() if fact}


def _seconds(span: Span) -> float:
    return ((span.end or span.begin) - span.begin) / _SECOND


def _natural(name: str) -> list[tuple[int, str]]:
    """So that gpu:2 comes before gpu:10."""
    # Every second part is a number.
    parts = enumerate(re.split(r"([0-9]+)", name))
    return [(int(part), "") if place % 2 else (0, part) for place, part in parts]


class _Rows:
    """The rows (threads) of each process: a name and a lane."""

    def __init__(self) -> None:
        self._tids: dict[tuple[int, str, int], int] = {}

    def expect(self, pid: int, name: str) -> None:
        """There is a row of that name, whatever else is on it."""
        self.tid(pid, name, 0)

    def tid(self, pid: int, name: str, lane: int) -> int:
        """The number of a row; unique in the whole trace."""
        return self._tids.setdefault((pid, name, lane), len(self._tids) + 1)

    def metadata(self) -> Iterator[TraceEvent]:
        """Names, and their order: GPU by GPU, and the lanes of each below it."""
        for pid in sorted({pid for pid, _, _ in self._tids}):
            yield _named("process_name", pid, 0, name=_PROCESSES[pid])
            yield _named("process_sort_index", pid, 0, sort_index=pid)
        ordered = sorted(self._tids, key=lambda row: (row[0], _natural(row[1]), row[2]))
        for place, (pid, name, lane) in enumerate(ordered):
            tid = self._tids[pid, name, lane]
            yield _named("thread_name", pid, tid, name=f"{name} ({lane + 1})" if lane else name)
            yield _named("thread_sort_index", pid, tid, sort_index=place)


def _named(kind: str, pid: int, tid: int, **arguments: Any) -> TraceEvent:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "ts": 0, "args": arguments}
