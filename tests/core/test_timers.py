"""Deadlines without a clock."""

from gpuarbiter_server.core.timers import Clock, Timers


def due(timers: Timers, now: float) -> list[object]:
    return [subject for _, subject in timers.due(now)]


def test_the_earliest_comes_first_and_equals_in_the_order_in_which_they_were_set() -> None:
    timers = Timers()
    for name, when in (("c", 3.0), ("a", 1.0), ("b1", 2.0), ("b2", 2.0)):
        timers.set((Clock.WAIT, name), when)
    assert timers.next() == 1.0
    assert due(timers, 0.5) == []
    assert due(timers, 2.0) == ["a", "b1", "b2"]
    assert due(timers, 9.0) == ["c"]
    assert timers.next() is None
    assert len(timers) == 0


def test_setting_a_timer_again_moves_it() -> None:
    timers = Timers()
    timers.set((Clock.WAIT, "a"), 1.0)
    timers.set((Clock.WAIT, "a"), 5.0)
    assert timers.when((Clock.WAIT, "a")) == 5.0
    assert due(timers, 4.0) == []
    timers.set((Clock.WAIT, "a"), 2.0)
    assert due(timers, 4.0) == ["a"]
    assert due(timers, 9.0) == []


def test_two_clocks_of_one_subject_are_two_timers() -> None:
    timers = Timers()
    timers.set((Clock.HOLD, "a"), 1.0)
    timers.set((Clock.GRACE, "a"), 2.0)
    timers.cancel((Clock.HOLD, "a"))
    timers.cancel((Clock.HOLD, "a"))
    assert timers.when((Clock.HOLD, "a")) is None
    assert list(timers.due(9.0)) == [(Clock.GRACE, "a")]


def test_handling_one_can_cancel_the_next() -> None:
    timers = Timers()
    timers.set((Clock.WAIT, "a"), 1.0)
    timers.set((Clock.WAIT, "b"), 1.0)
    fired = []
    for timer in timers.due(1.0):
        fired.append(timer)
        timers.cancel((Clock.WAIT, "b"))
    assert fired == [(Clock.WAIT, "a")]


def test_moved_and_cancelled_timers_do_not_pile_up() -> None:
    timers = Timers()
    for n in range(10_000):
        timers.set((Clock.STALE, "gpu"), float(n))
        timers.set((Clock.WAIT, n), float(n))
        timers.cancel((Clock.WAIT, n))
    assert len(timers) == 1
    assert len(timers._heap) <= 2 * len(timers) + 64
    assert timers.next() == 9999.0
