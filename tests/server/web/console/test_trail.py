"""Who held which GPU when, as the events tell it and as the state corrects it; all of it bounded."""

import json
from typing import Any

import pytest

from gpuarbiter_server.core.effects import Recorded
from gpuarbiter_server.core.model import (
    EndReason,
    EventType,
    GpuSpec,
    Holder,
    LeaseState,
    Sharing,
    WorkContext,
    YieldReason,
)
from gpuarbiter_server.core.views import GrantView, LeaseView
from gpuarbiter_server.store.history import HistoryEvent
from gpuarbiter_server.web.console import trail as module
from gpuarbiter_server.web.console.trail import Trail


class Told:
    """A trail, and the events that it is told."""

    def __init__(self) -> None:
        self.trail = Trail()
        self.sequence = 0

    def tell(self, kind: EventType, lease: str = "a", at: float = 100.0, number: int = 1, **facts: Any) -> None:
        self.sequence += 1
        facts = {"task_type": "ASR", "holder": Holder("asr-0", namespace="speech"), "gpus": ("gpu:0",)} | facts
        self.trail.take(number, HistoryEvent(self.sequence, at, Recorded(kind, lease_id=lease, **facts)))

    def spans(self, after: int = 0) -> list[Any]:
        return [json.loads(text) for text in self.trail.spans_after(after)]

    def events(self, after: int = 0) -> list[Any]:
        return [json.loads(text) for text in self.trail.events_after(after)]

    def compare(self, now: float, *leases: LeaseView, number: int = 1) -> None:
        live = {lease.lease_id for lease in leases}
        self.trail.compare(number, now, leases, live.__contains__, lambda moment: moment)


def live(lease_id: str, granted_at: float) -> LeaseView:
    grant = GrantView(GpuSpec("gpu:1", 1, 2**30), 0, 0, None, None)
    return LeaseView(
        lease_id, 1, "", "NMT", Holder("nmt-0"), "local", (grant,), Sharing.EXCLUSIVE, 50, LeaseState.HELD, 1.5,
        granted_at, None, None, 0.0, WorkContext(),
    )  # fmt: skip


def test_a_lease_is_told_from_its_grant_to_its_end_with_what_happened_to_it():
    told = Told()
    told.tell(EventType.GRANTED, waited=2.5)
    assert told.spans() == [
        {
            "id": "a",
            "task": "ASR",
            "client": "asr-0",
            "namespace": "speech",
            "gpus": ["gpu:0"],
            "begin": 100.0,
            "waited": 2.5,
        }
    ]
    told.tell(EventType.HOLD_EXCEEDED, at=101, detail="8 s")
    told.tell(EventType.YIELD_REQUESTED, at=102, yield_reason=YieldReason.MAX_HOLD)
    told.tell(EventType.ENDED, at=105, end_reason=EndReason.REVOKED, detail="it did not listen")
    (span,) = told.spans()
    assert (span["end"], span["how"], span["detail"]) == (105, "REVOKED", "it did not listen")
    assert span["marks"] == [[101, "HOLD_EXCEEDED", "8 s"], [102, "YIELD_REQUESTED", "MAX_HOLD"]]


def test_only_what_has_changed_since_is_told():
    told = Told()
    told.tell(EventType.GRANTED, "a", number=1)
    told.tell(EventType.GRANTED, "b", number=2)
    assert [span["id"] for span in told.spans(1)] == ["b"]
    assert [event["lease"] for event in told.events(1)] == ["b"]
    told.tell(EventType.ENDED, "a", number=3)
    assert [(span["id"], "end" in span) for span in told.spans(2)] == [("a", True)]
    assert told.spans(3) == told.events(3) == []


def test_renewals_are_no_news_and_nothing_is_told_twice():
    told = Told()
    told.tell(EventType.GRANTED)
    told.tell(EventType.RENEWED)
    told.sequence -= 2
    told.tell(EventType.GRANTED)
    assert len(told.events()) == 1
    assert told.trail.sequence == 2


def test_what_the_history_says_of_leases_that_nobody_knows_is_an_event_and_no_more():
    told = Told()
    told.tell(EventType.ENDED, "unknown", end_reason=EndReason.RELEASED)
    told.tell(EventType.GPU_LOST, "", gpus=("gpu:0",), holder=None, task_type="")
    assert told.spans() == []
    assert [event["type"] for event in told.events()] == ["ENDED", "GPU_LOST"]


def test_a_lease_that_the_history_does_not_show_begins_all_the_same():
    told = Told()
    told.compare(103, live("b", 101))
    # The history may be a moment late.
    assert told.spans() == []
    told.compare(105, live("b", 101))
    (span,) = told.spans()
    assert (span["id"], span["begin"], span["gpus"], span["waited"]) == ("b", 101, ["gpu:1"], 1.5)


def test_a_lease_whose_end_the_history_does_not_show_ends_when_it_was_seen_last():
    told = Told()
    told.tell(EventType.GRANTED, "b", at=100)
    told.compare(120, live("b", 100))
    told.compare(125)
    assert "end" not in told.spans()[0]
    told.compare(131, number=7)
    (span,) = told.spans(6)
    assert (span["end"], span["how"]) == (120, "UNKNOWN")


def test_everything_has_a_bound(monkeypatch: pytest.MonkeyPatch):
    for name in ("_MOST_SPANS", "_MOST_EVENTS", "_MOST_MARKS"):
        monkeypatch.setattr(module, name, 3)
    told = Told()
    for number in range(5):
        told.tell(EventType.GRANTED, str(number))
    assert [span["id"] for span in told.spans()] == ["0", "1", "2"]
    assert len(told.events()) == 3
    for _ in range(5):
        told.tell(EventType.RESIZED, "0")
    assert len(told.spans()[0]["marks"]) == 3
    for _ in range(2):
        for number in range(5):
            told.tell(EventType.GRANTED, str(number))
            told.tell(EventType.ENDED, str(number))
    assert len(told.spans()) <= 6
