"""Events as CSV (RFC 4180): a header, then one row for each event.

Law: the columns are only ever added to, at the end. A row is written as soon as its event is there.
"""

import csv
import io
from collections.abc import Iterable, Iterator

from gpuarbiter._convert import enum_name
from gpuarbiter.v1 import admin_pb2

_BREAK = "\r\n"
COLUMNS = (
    "sequence",
    "event_time",
    "type",
    "lease_id",
    "request_id",
    "task_type",
    "client_id",
    "namespace",
    "pod",
    "gpus",
    "fencing_token",
    "detail",
)


def rows(events: Iterable[admin_pb2.ListEventsResponse]) -> Iterator[str]:
    """The header and the rows, each without its line break (CRLF)."""
    yield _row(COLUMNS)
    for event in events:
        yield _row(_cells(event))


def _cells(event: admin_pb2.ListEventsResponse) -> tuple[str, ...]:
    # UTC with microseconds; always of one length, so that it sorts as text.
    moment = event.event_time.ToDatetime().isoformat(timespec="microseconds") + "Z"
    return (
        str(event.sequence),
        moment,
        enum_name(admin_pb2.EventType, event.type),
        event.lease_id,
        event.request_id,
        event.task_type,
        event.holder.client_id,
        event.holder.namespace,
        event.holder.pod,
        " ".join(event.gpus),
        str(event.fencing_token) if event.fencing_token else "",
        event.detail,
    )


def _row(cells: Iterable[str]) -> str:
    line = io.StringIO()
    # The writer quotes the characters of its own line break.
    csv.writer(line, lineterminator=_BREAK).writerow(cells)
    return line.getvalue().removesuffix(_BREAK)
