"""The clock of `pace` is replaced by one that only waiting moves: nothing here takes real time."""

import pytest

from gpuarbiter_server.gpu import pace
from gpuarbiter_server.gpu.pace import MIN_GAP_SECONDS, Pace


class Clock:
    """Time that passes while somebody waits. `meanwhile` happens at the start of the next wait."""

    def __init__(self) -> None:
        self.now = 100.0
        self.meanwhile: list[object] = []

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pace, "time", made)

    def wait(_self: object, timeout: float | None = None) -> bool:
        if made.meanwhile:
            made.meanwhile.pop(0)()
            return True
        assert timeout is not None, "would wait for ever"
        made.now += timeout
        return False

    monkeypatch.setattr(pace.threading.Condition, "wait", wait)
    return made


def test_turns_begin_at_the_interval(clock: Clock):
    turns = Pace(0.5)
    began = []
    for work in (0.0, 0.1, 0.4):
        assert turns.wait()
        began.append(clock.now)
        clock.now += work
    assert turns.wait()
    assert [*began, clock.now] == pytest.approx([100.0, 100.5, 101.0, 101.5])


def test_a_turn_that_takes_too_long_leaves_a_gap(clock: Clock):
    turns = Pace(0.05)
    turns.wait()
    clock.now += 3.0
    assert turns.wait()
    assert clock.now == pytest.approx(103.0 + MIN_GAP_SECONDS)


def test_a_turn_that_is_asked_for_comes_at_once(clock: Clock):
    turns = Pace(0.5)
    turns.wait()
    clock.now += 0.1
    clock.meanwhile = [turns.ask]
    assert turns.wait()
    assert clock.now == pytest.approx(100.1 + MIN_GAP_SECONDS)
    assert turns.wait()  # once only
    assert clock.now == pytest.approx(100.6 + MIN_GAP_SECONDS)


def test_what_is_asked_for_during_a_turn_needs_another(clock: Clock):
    turns = Pace(0.5)
    turns.wait()
    turns.ask()
    clock.now += 0.1
    assert turns.wait()
    assert clock.now == pytest.approx(100.1 + MIN_GAP_SECONDS)


def test_a_new_interval_holds_for_the_wait_under_way(clock: Clock):
    turns = Pace(0.5)
    turns.wait()
    clock.meanwhile = [lambda: turns.set_interval(0.05), lambda: turns.set_interval(0.05)]
    assert turns.wait()
    assert clock.now == pytest.approx(100.05)


def test_without_an_interval_only_asking_helps(clock: Clock):
    turns = Pace(None)
    assert turns.wait()  # the first turn is always asked for
    clock.meanwhile = [turns.ask]
    assert turns.wait()
    clock.meanwhile = [turns.stop]
    assert not turns.wait()


def test_stopping_ends_the_turns(clock: Clock):
    turns = Pace(0.5)
    assert not turns.stopped
    turns.stop()
    assert turns.stopped
    assert not turns.wait()
    assert clock.now == 100.0
