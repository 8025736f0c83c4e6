"""How often a model may be asked, with time as an argument."""

import pytest

from gpuarbiter_server.analysis.limits import Breaker, Budget


def taken(budget: Budget, now: float, count: int, *, per_minute: int = 10, per_day: int = 1000) -> int:
    return sum(not budget.take(now, per_minute=per_minute, per_day=per_day) for _ in range(count))


def test_in_any_minute_there_are_so_many_requests_at_most():
    budget = Budget()
    assert [taken(budget, at, 8) for at in (100.0, 130.0, 159.9)] == [8, 2, 0]
    assert budget.take(159.9, per_minute=10, per_day=1000) == "the limit of 10 requests a minute is reached"
    assert [taken(budget, at, 20) for at in (160.0, 189.9, 190.0)] == [8, 0, 2]


def test_a_day_begins_with_its_first_request_and_has_a_limit_of_its_own():
    budget = Budget()
    assert sum(taken(budget, 1000.0 + 60 * minute, 10, per_day=35) for minute in range(10)) == 35
    assert budget.take(80_000.0, per_minute=10, per_day=35) == "the limit of 35 requests a day is reached"
    assert taken(budget, 1000.0 + 86_400, 40, per_minute=100, per_day=35) == 35


def test_a_lower_limit_counts_what_was_taken_under_the_higher_one():
    budget = Budget()
    assert taken(budget, 0.0, 10) == 10
    assert (taken(budget, 0.0, 5, per_minute=12), taken(budget, 0.0, 5, per_minute=3)) == (2, 0)


def test_after_three_failures_in_a_row_it_is_left_alone_for_longer_each_time():
    breaker, now, pauses = Breaker(), 0.0, []
    for _ in range(12):
        breaker.failed(now)
        pauses.append(breaker.left(now))
        now += pauses[-1]
        assert not breaker.left(now)
    assert pauses == [0, 0, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600]
    breaker.worked()
    breaker.failed(now)
    assert not breaker.left(now)


@pytest.mark.parametrize(("asked_for", "left"), [(20.0, 20.0), (0.0, 0.0), (float("inf"), 3600.0)])
def test_who_asks_to_be_left_alone_is_within_bounds(asked_for: float, left: float):
    breaker = Breaker()
    breaker.failed(7.0, asked_for=asked_for)
    assert breaker.left(7.0) == left
    # A shorter wish of an answer that was under way does not shorten it.
    breaker.failed(7.0, asked_for=1.0)
    assert breaker.left(7.0) == max(left, 1.0)
