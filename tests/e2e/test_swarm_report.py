"""The judge of the soak finds what it is there to find."""

import json
from pathlib import Path
from typing import Any

import pytest

from e2e.harness.swarm_report import Asked, Diaries, Use, percentile, replay
from gpuarbiter.v1 import admin_pb2


def trail(*told: tuple[float, str, str] | tuple[float, str, str, str]) -> list[admin_pb2.ListEventsResponse]:
    """Events from (seconds, type, request, detail)."""
    events = []
    for number, (at, kind, request, *detail) in enumerate(told):
        event = admin_pb2.ListEventsResponse(sequence=number, request_id=request, detail="".join(detail))
        event.type = admin_pb2.EventType.Value(f"EVENT_TYPE_{kind}")
        event.event_time.FromNanoseconds(round(at * 1e9))
        events.append(event)
    return events


def orderly(first: str, second: str) -> list[admin_pb2.ListEventsResponse]:
    """A and B queue up in that order; then two are granted."""
    return trail(
        (0, "QUEUED", "A"),
        (0, "QUEUED", "B"),
        (2, "GRANTED", first),
        (3, "ENDED", first),
        (3, "GRANTED", second),
        (4, "ENDED", second),
    )


@pytest.mark.parametrize(
    ("a", "b", "right"),
    [
        (Asked(50, 0.0), Asked(50, 0.5), "AB"),
        (Asked(50, 0.0), Asked(51, 0.5), "BA"),
        # A has waited for more than the level by which B is above it.
        (Asked(50, 0.0), Asked(51, 1.5), "AB"),
        (Asked(51, 0.0), Asked(50, 0.0), "AB"),
        # Who was first is told by the order of the events.
        (Asked(50), Asked(50), "AB"),
    ],
)
def test_disorder_is_found(a: Asked, b: Asked, right: str):
    asked = {"A": a, "B": b}
    good = replay(orderly(*right), asked)
    assert (good.disorder, good.compared, good.granted) == ([], 1, 2)
    assert len(replay(orderly(*reversed(right)), asked).disorder) == 1


@pytest.mark.parametrize("b", [Asked(51, 1.01), Asked(51)])
def test_what_is_too_close_to_call_or_not_known_is_not_judged(b: Asked):
    for order in ("AB", "BA"):
        result = replay(orderly(*order), {"A": Asked(50, 0.0), "B": b})
        assert (result.disorder, result.compared) == ([], 0)


def test_a_request_whose_client_is_gone_is_passed_over():
    events = trail((0, "QUEUED", "A"), (0, "QUEUED", "B"), (1, "DETACHED", "A"), (2, "GRANTED", "B"))
    assert not replay(events, {"A": Asked(50), "B": Asked(50)}).disorder


def test_requests_that_end_twice_or_never_are_found():
    events = trail(
        (0, "GRANTED", "twice"),
        (1, "ENDED", "twice"),
        (2, "ENDED", "twice"),
        (3, "QUEUED", "never"),
        (4, "QUEUED", "once"),
        (5, "FAILED", "once"),
        (6, "GRANTED", "taken back"),
        (6, "ENDED", "taken back", "DISCONNECTED: not taken: back in the queue"),
        (7, "FAILED", "taken back"),
    )
    assert replay(events, {}).odd_ends == {"twice": ["ENDED", "ENDED"], "never": []}


def test_the_time_after_a_death_is_measured_while_somebody_waits():
    events = trail(
        (0, "GRANTED", "A"),
        (1, "ENDED", "A", "HOLDER_DIED: process 1 is gone"),
        (9, "GRANTED", "B"),
        (10, "QUEUED", "C"),
        (11, "ENDED", "B", "HOLDER_DIED: process 2 is gone"),
        (11.5, "GRANTED", "C"),
    )
    assert replay(events, {"B": Asked(50, killed_at=10.75)}).after_deaths == [0.75]


def test_the_time_between_grants_is_measured_while_somebody_waits():
    events = trail(
        (0, "GRANTED", "A"),
        (1, "QUEUED", "B"),
        (2, "GRANTED", "B"),
        (3, "QUEUED", "C"),
        (3, "QUEUED", "D"),
        (4, "GRANTED", "C"),
        (6, "GRANTED", "D"),
        (9, "GRANTED", "E"),
    )
    assert replay(events, {}).between_grants == [2]


def test_uses_end_with_the_last_word_of_their_client(tmp_path: Path):
    def diary(name: str, *lines: dict[str, Any]) -> None:
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    asks = {"event": "asks", "request": "A", "at": 0.5, "priority": 50}
    granted = {"event": "granted", "request": "A", "token": 1, "at": 1.0, "queued_at": 99.0}
    uses = {"event": "uses", "request": "A", "at": 2.0}
    diary("client-0-1", asks, granted, uses)
    diary(
        "client-1-1",
        asks | {"request": "B"},
        granted | {"request": "B", "token": 2, "at": 3.0},
        {"event": "releases", "request": "B", "at": 4.0},
        {"event": "released", "request": "B", "at": 5.0},
    )
    diary("swarm", {"event": "killed", "client": "0-1", "doing": "holding", "since": 100.0})
    diaries = Diaries(tmp_path)
    assert diaries.uses() == [Use(1, 1.0, 2.0, killed=True), Use(2, 3.0, 4.0, killed=False)]
    assert diaries.outcomes() == {"B": ["released"]}
    assert diaries.asked() == {"A": Asked(50, 99.0, 100.0), "B": Asked(50, 99.0)}
    assert not diaries.over


def test_percentiles():
    assert percentile([], 0.5) == 0
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0] * 99 + [5.0], 0.99) == 5.0
