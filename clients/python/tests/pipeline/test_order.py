"""Results of a session come out in order, and none waits for too long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuarbiter.pipeline._order import MAX_GAPS, SessionOrder, Turn


def expecting(*indices: int, hold_back: float | None = 2.0, first: int = 0) -> SessionOrder[str]:
    order: SessionOrder[str] = SessionOrder(first, hold_back)
    for index in indices:
        order.expect(index)
    return order


def out(turns: list[Turn[str]]) -> str:
    return " ".join(turn.item + ("!" if turn.late else "") for turn in turns)


def test_what_is_early_waits_for_what_is_before_it():
    order = expecting(0, 1, 2)
    assert out(order.arrived(2, "c", 0)) == ""
    assert out(order.arrived(1, "b", 0)) == ""
    assert order.held_back == 2
    assert out(order.arrived(0, "a", 1)) == "a b c"
    assert order.deadline() is None


def test_what_waited_long_enough_goes_and_the_late_one_is_marked():
    order = expecting(0, 1, 2, 3)
    order.arrived(1, "b", 1.0)
    order.arrived(3, "d", 2.0)
    assert order.deadline() == 3.0
    assert out(order.due(2.9)) == ""
    assert out(order.due(3.0)) == "b"
    assert out(order.arrived(0, "a", 3.5)) == "a!"
    assert out(order.due(4.0)) == "d"
    assert out(order.arrived(2, "c", 9.0)) == "c!"
    assert order.deadline() is None


def test_what_is_there_below_the_overdue_goes_before_it():
    order = expecting(0, 1, 2, 3, 4)
    order.arrived(3, "d", 0.0)
    order.arrived(1, "b", 1.0)
    order.arrived(4, "e", 1.5)
    assert out(order.due(2.0)) == "b d e"


def test_an_index_that_nobody_submitted_holds_back_as_long_and_may_come_after_all():
    order = expecting(5, first=2)
    assert out(order.arrived(5, "f", 0)) == ""
    assert out(order.due(2)) == "f"
    order.expect(3)
    assert out(order.arrived(3, "d", 3)) == "d!"
    for index in (3, 5, 0, 1):
        with pytest.raises(ValueError, match=f"utterance_index {index} is there already"):
            order.expect(index)
    order.expect(2)
    order.expect(4)


def test_nothing_is_held_back_where_that_is_said():
    order = expecting(0, 1, hold_back=0.0)
    order.arrived(1, "b", 7.0)
    assert order.deadline() == 7.0
    assert out(order.due(7.0)) == "b"
    assert out(order.arrived(0, "a", 8.0)) == "a!"


def test_without_a_bound_it_waits_as_long_as_it_takes():
    order = expecting(0, 1, hold_back=None)
    order.arrived(1, "b", 0)
    assert order.deadline() is None
    assert out(order.due(1e9)) == ""
    assert out(order.arrived(0, "a", 1e9)) == "a b"


def test_once_ended_gaps_hold_nobody_back_but_those_under_way_do():
    order = expecting(1, 4, 6)
    order.arrived(6, "g", 0)
    order.arrived(1, "b", 0)
    assert out(order.end()) == "b"
    assert not order.over
    assert out(order.arrived(4, "e", 1)) == "e g"
    assert order.over


def test_what_is_late_and_under_way_is_waited_for_at_the_end():
    order = expecting(0, 1)
    order.arrived(1, "b", 0)
    assert out(order.due(2)) == "b"
    assert out(order.end()) == ""
    assert not order.over
    assert out(order.arrived(0, "a", 3)) == "a!"
    assert order.over


@pytest.mark.parametrize("index", [0, 1])
def test_an_index_comes_once(index: int):
    order = expecting(0, 1)
    order.arrived(1, "b", 0)
    with pytest.raises(ValueError, match="there already"):
        order.expect(index)


def test_indices_follow_the_highest():
    order = expecting(first=3)
    assert order.following == 3
    order.expect(9)
    order.expect(4)
    assert order.following == 10


def test_gaps_are_remembered_up_to_a_bound():
    order = expecting(hold_back=0.0)
    for number in range(MAX_GAPS + 1):
        order.expect(2 * number + 1)
        order.arrived(2 * number + 1, "x", 0)
        order.due(0)
    with pytest.raises(ValueError, match="passed over too long ago"):
        order.expect(0)
    order.expect(2)


TIMES = st.sampled_from([0.0, 0.5, 1.0, 2.5, 7.0])


@given(
    jobs=st.lists(st.tuples(st.integers(0, 30), TIMES, TIMES), unique_by=lambda job: job[0], min_size=1, max_size=12),
    hold_back=st.sampled_from([None, 0.0, 1.0, 3.0]),
)
def test_whatever_comes_when_each_comes_out_once_and_in_order(
    jobs: list[tuple[int, float, float]], hold_back: float | None
):
    order: SessionOrder[int] = SessionOrder(0, hold_back)
    turns: list[tuple[Turn[int], float]] = []
    events = [(at, 0, index) for index, at, _ in jobs] + [(at + takes, 1, index) for index, at, takes in jobs]
    for at, arrives, index in sorted(events):
        while (deadline := order.deadline()) is not None and deadline <= at:
            turns += [(turn, deadline) for turn in order.due(deadline)]
        if not arrives:
            order.expect(index)
        else:
            turns += [(turn, at) for turn in order.arrived(index, index, at)]
    while (deadline := order.deadline()) is not None:
        turns += [(turn, deadline) for turn in order.due(deadline)]
    turns += [(turn, 1e9) for turn in order.end()]

    assert sorted(turn.item for turn, _ in turns) == sorted(index for index, _, _ in jobs)
    assert order.over
    came = {index: at + takes for index, at, takes in jobs}
    highest = -1
    for turn, when in turns:
        assert turn.late == (turn.item < highest)
        highest = max(highest, turn.item)
        assert when >= came[turn.item]
        if hold_back is not None:
            assert when <= came[turn.item] + hold_back
