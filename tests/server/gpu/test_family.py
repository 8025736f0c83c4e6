import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gpuarbiter_server.core.events import DescendantsSeen
from gpuarbiter_server.core.model import ProcessId
from gpuarbiter_server.gpu import family as module
from gpuarbiter_server.gpu.family import FamilyWatch
from gpuarbiter_server.gpu.procfs import identify

Make = Callable[..., Any]


class Desk:
    def __init__(self) -> None:
        self.events: list[DescendantsSeen] = []
        self.watch = FamilyWatch(0.01, self.events.append)
        self.thread = threading.Thread(target=self.watch.run, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.watch.pace.stop()
        self.thread.join(20)


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.close()


def living(pid: int) -> ProcessId:
    process = identify(pid)
    assert process is not None
    return process


def seen(holder: ProcessId, *pids: ProcessId) -> DescendantsSeen:
    return DescendantsSeen(holder, tuple(sorted(pids)))


def test_descendants_are_told_when_they_change(desk: Desk, family: Make, eventually: Make):
    one = family(depth=3)
    holder, child, grandchild, last = map(living, one.pids)
    desk.watch.watch(frozenset({holder}))
    eventually(lambda: desk.events)
    assert desk.events == [seen(holder, child, grandchild, last)]
    one.kill(3)
    eventually(lambda: len(desk.events) == 2)
    assert desk.events[1] == seen(holder, child, grandchild)


def test_orphans_still_belong_to_the_holder(desk: Desk, family: Make, eventually: Make):
    one = family(depth=3)
    holder, child, grandchild, last = map(living, one.pids)
    desk.watch.watch(frozenset({holder}))
    eventually(lambda: desk.events)
    one.kill(1)
    eventually(lambda: len(desk.events) == 2)
    one.kill(0)
    one.kill(2)
    eventually(lambda: seen(holder, last) in desk.events)
    assert desk.events[:2] == [seen(holder, child, grandchild, last), seen(holder, grandchild, last)]


def test_a_holder_without_descendants_is_not_worth_an_event(desk: Desk, family: Make, eventually: Make):
    alone, parent = family(), family(depth=1)
    desk.watch.watch(frozenset({living(alone.pids[0]), living(parent.pids[0])}))
    eventually(lambda: desk.events)
    assert [event.holder for event in desk.events] == [living(parent.pids[0])]


def test_who_is_watched_anew_is_told_anew(desk: Desk, family: Make, eventually: Make):
    one = family(depth=1)
    holder, child = map(living, one.pids)
    desk.watch.watch(frozenset({holder}))
    eventually(lambda: desk.events)
    desk.watch.watch(frozenset())
    desk.watch.watch(frozenset({holder}))
    eventually(lambda: len(desk.events) == 2)
    assert desk.events == [seen(holder, child)] * 2


def test_a_defect_does_not_end_the_watch(
    desk: Desk, family: Make, eventually: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    holder, child = map(living, family(depth=1).pids)
    with monkeypatch.context() as patch:
        patch.setattr(module, "is_alive", lambda _: 1 / 0)
        desk.watch.watch(frozenset({holder}))
        eventually(lambda: "looking for the descendants of holders failed" in caplog.text)
    eventually(lambda: desk.events)
    assert desk.events == [seen(holder, child)]
