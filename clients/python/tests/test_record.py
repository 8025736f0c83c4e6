"""The state of a lease, with time as an argument."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.scripted_arbiter import seconds
from gpuarbiter._record import DISCONNECT_GRACE_SECONDS, LeaseRecord, grant_moment
from gpuarbiter._values import Released
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import lease_pb2


def record(hold: float | None = None, ttl: float | None = None, at: float = 100.0) -> LeaseRecord:
    lease = lease_pb2.Lease(
        lease_id="lease-1",
        hold_remaining=None if hold is None else seconds(hold),
        ttl_remaining=None if ttl is None else seconds(ttl),
    )
    return LeaseRecord(lease, at)


def asked(reason: int = lease_pb2.YIELD_REASON_QUANTUM, grace: float | None = None) -> pb.YieldRequested:
    return pb.YieldRequested(reason=reason, grace=None if grace is None else seconds(grace))


def test_a_grant_is_counted_from_its_sending_and_waiting():
    assert grant_moment(10, 10, timedelta(seconds=3), received=13.2) == 13
    # A lease that was joined: it waited long ago.
    assert grant_moment(10, 10, timedelta(seconds=60), received=10.1) == 10
    # Asked again: what is said of the lease was said after that, and the wait is that since the first time...
    assert grant_moment(10, 14, timedelta(seconds=5), received=15.2) == 15
    # ... or, as the arbiter began anew, since some moment in between.
    assert grant_moment(10, 14, timedelta(seconds=1), received=15.2) == 14


@given(first=st.floats(0, 1e6), later=st.floats(0, 1e6), wait=st.floats(0, 1e6), lag=st.floats(0, 1e6))
def test_the_moment_lies_between_the_last_sending_and_the_answer(first: float, later: float, wait: float, lag: float):
    sent = first + later
    assert sent <= grant_moment(first, sent, timedelta(seconds=wait), sent + lag) <= sent + lag


def test_deadlines_count_from_the_given_moment():
    held = record(hold=8, ttl=3)
    assert (held.hold_deadline, held.ttl_deadline) == (108, 103)
    held.renewed(pb.RenewResponse(hold_remaining=seconds(7), ttl_remaining=seconds(3)), sent=102, now=102.5)
    assert (held.hold_deadline, held.ttl_deadline) == (109, 105)
    held.changed(lease_pb2.Lease(lease_id="lease-1"), 104)
    assert (held.hold_deadline, held.ttl_deadline) == (None, None)


def test_what_stands_is_no_news():
    held = record()
    assert held.yield_asked(asked(), 101)
    assert not held.yield_asked(asked(), 102)
    assert held.yield_asked(asked(grace=5), 103), "now it will be revoked"
    assert not held.yield_asked(asked(grace=4), 104), "with less time left, but the same"
    assert held.yield_request is not None
    assert held.yield_request.deadline == 108
    assert held.yield_asked(asked(lease_pb2.YIELD_REASON_OPERATOR), 105)


def test_without_a_ttl_the_grace_counts_from_the_break():
    held = record()
    assert held.give_up_at is None
    assert not held.expired(1e9)
    assert held.broke(200)
    assert not held.broke(203), "it is broken already"
    assert held.uncertain
    assert held.give_up_at == 200 + DISCONNECT_GRACE_SECONDS
    assert not held.expired(204.9)
    assert held.expired(205)
    held.mended()
    assert not held.uncertain
    assert held.give_up_at is None


def test_with_a_ttl_it_is_the_ttl_that_counts_and_renewals_move_it():
    held = record(ttl=30)
    held.broke(120)
    assert held.give_up_at == 130
    held.renewed(pb.RenewResponse(ttl_remaining=seconds(30)), sent=125, now=126)
    assert held.give_up_at == 155


def test_a_lease_is_lost_once():
    held = record()
    assert held.ended(pb.Ended(reason=lease_pb2.END_REASON_MAX_HOLD, detail="over", held=seconds(9)))
    assert not held.lose("DISCONNECTED")
    assert not held.ended(pb.Ended(reason=lease_pb2.END_REASON_OPERATOR))
    assert (held.lost_reason, held.lost_detail) == ("MAX_HOLD", "over")
    assert held.released == Released("MAX_HOLD", timedelta(seconds=9), already_ended=True)
    assert not held.broke(1)
    assert not held.yield_asked(asked(), 1)


def test_what_is_given_back_is_not_lost():
    held = record()
    held.close()
    assert not held.ended(pb.Ended(reason=lease_pb2.END_REASON_RELEASED))
    assert held.released is None, "the release has an answer of its own"
    assert not held.lose("DISCONNECTED")
    assert not held.lost
    first = Released("RELEASED", timedelta(1), already_ended=False)
    assert held.gave_back(first) is first
    assert held.gave_back(Released("X", timedelta(2), already_ended=True)) is first


@pytest.mark.parametrize(("number", "reason"), [(0, "ENDED"), (77, "UNRECOGNIZED_77")])
def test_an_end_for_a_reason_that_is_not_known_is_an_end(number: int, reason: str):
    held = record()
    held.ended(pb.Ended(reason=number))  # type: ignore[arg-type]
    assert held.lost_reason == reason


STEPS = st.lists(st.sampled_from(["break", "mend", "lose", "end", "close", "renew", "yield"]), max_size=12)


@given(STEPS)
def test_over_is_over_whatever_happens(steps: list[str]):
    held = record(ttl=5)
    news = 0
    for now, step in enumerate(steps):
        over = held.over
        match step:
            case "break":
                held.broke(now)
            case "mend":
                held.mended()
            case "lose":
                news += held.lose("DISCONNECTED")
            case "end":
                news += held.ended(pb.Ended(reason=lease_pb2.END_REASON_REVOKED))
            case "close":
                held.close()
            case "renew":
                held.renewed(pb.RenewResponse(ttl_remaining=seconds(5)), now, now)
            case "yield":
                held.yield_asked(asked(), now)
        assert held.over >= over
        assert not (held.over and held.uncertain)
    assert news <= 1
    assert held.lost == (news == 1)
