"""The audit trail as a trace and as CSV: whatever the history, the file is well formed and tells it."""

import csv
import io
import itertools
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuarbiter._trail import chrome, lanes, table
from gpuarbiter.v1 import admin_pb2, lease_pb2

SECOND = 10**6
BEGIN = 1_700_000_000 * SECOND
REQUIRED = {
    "M": {"args"},
    "X": {"ts", "dur", "cat", "args"},
    "i": {"ts", "s", "cat", "args"},
    "s": {"ts", "id", "cat"},
    "f": {"ts", "id", "cat", "bp"},
}


def event(kind: str, at: float, **fields: Any) -> admin_pb2.ListEventsResponse:
    """What happened `at` so many seconds."""
    client = fields.pop("client", "me")
    made = admin_pb2.ListEventsResponse(type=f"EVENT_TYPE_{kind}", holder=lease_pb2.Holder(client_id=client), **fields)
    made.event_time.FromMicroseconds(BEGIN + round(at * SECOND))
    return made


def granted(lease: str, at: float, *gpus: str, request: str = "") -> admin_pb2.ListEventsResponse:
    return event("GRANTED", at, lease_id=lease, request_id=request or lease, task_type="ASR", gpus=gpus or ("gpu:0",))


def ended(lease: str, at: float, *gpus: str, detail: str = "RELEASED") -> admin_pb2.ListEventsResponse:
    gpus = gpus or ("gpu:0",)
    return event("ENDED", at, lease_id=lease, request_id=lease, task_type="ASR", gpus=gpus, detail=detail)


def trace(events: Sequence[admin_pb2.ListEventsResponse]) -> list[dict[str, Any]]:
    """The trace of a history, checked to be well formed."""
    whole = json.loads("\n".join(chrome.lines(events)))
    made: list[dict[str, Any]] = whole["traceEvents"]
    check(made)
    return made


def check(made: list[dict[str, Any]]) -> None:
    """The rules of the format, as far as viewers depend on them."""
    slices: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    named = set()
    arrows: dict[int, dict[str, dict[str, Any]]] = defaultdict(dict)
    for each in made:
        assert REQUIRED[each["ph"]] | {"name", "pid", "tid"} <= each.keys(), each
        assert isinstance(each["ts"], int)
        row = (each["pid"], each["tid"])
        match each["ph"]:
            case "M" if each["name"] == "thread_name":
                assert row not in named, "one name each"
                named.add(row)
            case "X":
                assert each["dur"] > 0
                slices[row].append((each["ts"], each["ts"] + each["dur"]))
            case "s" | "f" as end:
                assert end not in arrows[each["id"]], "each arrow has one beginning and one end"
                arrows[each["id"]][end] = each
    assert {(each["pid"], each["tid"]) for each in made if each["ph"] != "M"} <= named
    for on_row in slices.values():
        on_row.sort()
        for (_, end), (begin, _) in itertools.pairwise(on_row):
            assert end <= begin, "they lie apart"
    for ends in arrows.values():
        assert ends.keys() == {"s", "f"}
        assert ends["s"]["ts"] <= ends["f"]["ts"]
        for end in ends.values():
            assert any(begin < end["ts"] < over for begin, over in slices[end["pid"], end["tid"]]), "inside a slice"
    moments = [each["ts"] for each in made if each["ph"] != "M"]
    assert moments == sorted(moments)


def rows(made: list[dict[str, Any]]) -> dict[int, str]:
    return {each["tid"]: each["args"]["name"] for each in made if each["name"] == "thread_name"}


def leases(made: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """The slices of leases, by lease and row."""
    names = rows(made)
    return {(e["args"]["lease"], names[e["tid"]]): e for e in made if e["ph"] == "X" and e["cat"] == "lease"}


KINDS = sorted(name.removeprefix("EVENT_TYPE_") for name in admin_pb2.EventType.keys())  # noqa: SIM118 -- no dict
happenings = st.builds(
    event,
    st.sampled_from([*KINDS, *["QUEUED", "GRANTED", "ENDED"] * 8]),
    # Also twice at one time, and with a clock that is set back.
    st.one_of(st.integers(0, 8), st.integers(0, 8).map(lambda tick: tick / SECOND)),
    lease_id=st.sampled_from(["", "a", "b", "c"]),
    request_id=st.sampled_from(["", "a", "b"]),
    task_type=st.sampled_from(["", "ASR", "NMT"]),
    gpus=st.lists(st.sampled_from(["gpu:0", "gpu:1", "gpu:10", "²"]), max_size=3),
    client=st.sampled_from(["me", "you"]),
)


@given(st.lists(happenings, max_size=40))
def test_whatever_happened_the_trace_is_well_formed(history: list[admin_pb2.ListEventsResponse]):
    made = trace(history)
    shown = [e for e in made if e["ph"] == "X" and e["cat"] == "lease" and "cut off" not in e["name"]]
    assert len(shown) == sum(
        len(set(each.gpus) or {"?"}) for each in history if each.type == admin_pb2.EVENT_TYPE_GRANTED and each.lease_id
    ), "each grant is shown once on each of its GPUs"


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10)), max_size=30))
def test_lanes_hold_what_lies_apart_and_are_as_few_as_can_be(drawn: list[tuple[int, int]]):
    spans = [(begin, begin + length) for begin, length in drawn]
    assigned = lanes.assign(spans)
    for place, (begin, end) in enumerate(spans):
        for other in range(place):
            if assigned[other] == assigned[place]:
                assert end <= spans[other][0] or spans[other][1] <= begin
    most = max((sum(b <= moment < e for b, e in spans) for moment in range(40)), default=0)
    assert len(set(assigned)) == most


def test_a_wait_its_arrow_and_its_lease():
    made = trace(
        [
            event("QUEUED", 1, request_id="a", task_type="ASR", detail="waits for the GPU"),
            granted("a", 3, "gpu:0", "gpu:1"),
            event("YIELD_REQUESTED", 4, lease_id="a", gpus=["gpu:0", "gpu:1"], detail="PREEMPTED"),
            ended("a", 5, "gpu:0", "gpu:1"),
        ]
    )
    held = leases(made)["a", "gpu:1"]
    assert (held["name"], held["ts"], held["dur"]) == ("ASR", BEGIN + 3 * SECOND, 2 * SECOND)
    told = held["args"]
    assert (told["client"], told["request"], told["reason"]) == ("me", "a", "RELEASED")
    assert (told["wait_seconds"], told["hold_seconds"]) == (2.0, 2.0)
    (wait,) = [each for each in made if each["ph"] == "X" and each["cat"] == "wait"]
    assert (wait["dur"], wait["args"]["reason"], wait["args"]["outcome"]) == (
        2 * SECOND,
        "waits for the GPU",
        "GRANTED",
    )
    assert rows(made)[wait["tid"]] == "ASR"
    assert [each["ph"] for each in made if each["ph"] in "sf"] == ["s", "s", "f", "f"]
    assert [rows(made)[each["tid"]] for each in made if each["ph"] == "i"] == ["gpu:0", "gpu:1"]


def test_shared_leases_lie_side_by_side():
    made = trace([granted("a", 0), granted("b", 1), ended("a", 2), granted("c", 3), ended("b", 4), ended("c", 5)])
    assert leases(made).keys() == {("a", "gpu:0"), ("b", "gpu:0 (2)"), ("c", "gpu:0")}


@pytest.mark.parametrize(
    ("history", "mark", "begin", "length"),
    [
        ([granted("a", 0), granted("b", 1), event("DRAINED", 7)], "still live", 0, 7),
        ([granted("b", 1, "gpu:1"), ended("a", 3)], "cut off", 1, 2),
        ([granted("a", 0), event("STARTED", 4), granted("b", 9)], "unknown", 0, 4),
        ([granted("a", 0), event("STARTED", 4), event("STARTED", 6), granted("b", 9)], "unknown", 0, 4),
        ([granted("a", 0), event("STARTED", 4), event("RECOVERED", 5, lease_id="a"), ended("a", 9)], "", 0, 9),
        ([granted("a", 0), event("STARTED", 4), ended("a", 5, detail="HOLDER_DIED")], "", 0, 5),
        ([granted("a", 0), event("STARTED", 4), event("COOLDOWN_STARTED", 5, lease_id="a")], "unknown", 0, 4),
    ],
)
def test_what_the_history_does_not_show_is_marked(
    history: list[admin_pb2.ListEventsResponse], mark: str, begin: int, length: int
):
    shown = leases(trace(history))["a", "gpu:0"]
    assert shown["args"].get("mark", "") == mark
    assert (shown["ts"] - BEGIN, shown["dur"]) == (begin * SECOND, length * SECOND)


def test_nobody_waits_on_through_a_restart():
    made = trace([event("QUEUED", 0, request_id="a", task_type="NMT"), event("STARTED", 2), event("DRAINED", 9)])
    (wait,) = [each for each in made if each["ph"] == "X"]
    assert (wait["dur"], wait["args"]["mark"]) == (2 * SECOND, "lost")


def test_gpus_are_in_the_order_of_their_numbers():
    made = trace([event("GPU_LOST", 0, gpus=[gpu]) for gpu in ("gpu:10", "gpu:2", "gpu:0")])
    order = [each["args"]["name"] for each in made if each["name"] == "thread_name"]
    assert order == ["gpu:0", "gpu:2", "gpu:10"]


def test_an_empty_history_is_a_trace_too():
    assert trace([]) == []


@given(detail=st.text(st.characters(exclude_categories=("Cs",))), client=st.text(st.sampled_from('a,"\n\r ')))
def test_csv_reads_back_as_it_was(detail: str, client: str):
    told = event("ENDED", 1.5, sequence=7, gpus=["gpu:0", "gpu:1"], detail=detail.replace("\0", ""), client=client)
    text = "".join(f"{row}\r\n" for row in table.rows([told]))
    header, row = csv.reader(io.StringIO(text, newline=""), strict=True)
    found = dict(zip(header, row, strict=True))
    assert (found["detail"], found["client_id"], found["gpus"]) == (told.detail, client, "gpu:0 gpu:1")
    assert (found["event_time"], found["type"], found["fencing_token"]) == ("2023-11-14T22:13:21.500000Z", "ENDED", "")
