import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gpuarbiter_server.core.events import ProcessExited
from gpuarbiter_server.core.model import Holder, ProcessId
from gpuarbiter_server.gpu import processes
from gpuarbiter_server.gpu.processes import ProcessWatcher, identify, own_pid_namespace

Make = Callable[..., Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Make:
    """Runs a coroutine on either kind of loop."""
    factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop

    def run_it(coroutine: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(asyncio.wait_for(coroutine, 30))

    return run_it


class Desk:
    """A watcher with what it delivered."""

    def __init__(self, **options: Any) -> None:
        self.events: list[ProcessExited] = []
        self.arrived = asyncio.Event()
        self.watcher = ProcessWatcher(asyncio.get_running_loop(), self._deliver, **options)

    def _deliver(self, event: ProcessExited) -> None:
        self.events.append(event)
        self.arrived.set()


def holder_of(process: ProcessId, **changes: Any) -> Holder:
    facts = {
        "client_id": "c",
        "pid": process.pid,
        "pid_namespace": own_pid_namespace(),
        "process_start_ticks": process.start_ticks,
    }
    return Holder(**(facts | changes))


def living(pid: int) -> ProcessId:
    process = identify(pid)
    assert process is not None
    return process


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def emptied(watcher: ProcessWatcher) -> None:
    async with asyncio.timeout(10):
        while len(watcher):  # noqa: ASYNC110 - the watcher has nobody to tell that it is empty
            await asyncio.sleep(0)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_watched_process_that_dies_is_reported_once(run: Make, family: Make):
    async def scene():
        desk, one = Desk(), family()
        process = living(one.pids[0])
        desk.watcher.watch(process)
        desk.watcher.watch(process)
        await turns()
        assert desk.events == []
        one.kill(0)
        await desk.arrived.wait()
        await turns()
        assert desk.events == [ProcessExited(process)]
        assert len(desk.watcher) == 0
        desk.watcher.unwatch(process)
        desk.watcher.close()

    run(scene())


def test_a_process_that_is_gone_already_is_reported_soon(run: Make, family: Make):
    async def scene():
        desk, one = Desk(), family()
        process = living(one.pids[0])
        one.kill(0)
        desk.watcher.watch(process)
        assert desk.events == []  # never from inside the call
        await desk.arrived.wait()
        assert desk.events == [ProcessExited(process)]

    run(scene())


def test_a_later_process_with_the_pid_is_not_the_one(run: Make):
    async def scene():
        desk = Desk()
        earlier = ProcessId(os.getpid(), living(os.getpid()).start_ticks - 1)
        desk.watcher.watch(earlier)
        await desk.arrived.wait()
        assert desk.events == [ProcessExited(earlier)]
        assert len(desk.watcher) == 0

    run(scene())


def test_what_is_unwatched_before_its_death_is_told_is_not_told(run: Make, family: Make):
    async def scene():
        desk, one = Desk(), family()
        process = living(one.pids[0])
        one.kill(0)
        desk.watcher.watch(process)
        desk.watcher.unwatch(process)
        await turns()
        assert desk.events == []
        assert len(desk.watcher) == 0

    run(scene())


def test_unwatching_lingers_and_watching_again_reopens_nothing(
    run: Make, family: Make, monkeypatch: pytest.MonkeyPatch
):
    opened = []
    real = os.pidfd_open
    monkeypatch.setattr(os, "pidfd_open", lambda pid: opened.append(pid) or real(pid))

    async def scene():
        desk, one = Desk(), family()
        process = living(one.pids[0])
        for _ in range(100):
            desk.watcher.watch(process)
            desk.watcher.unwatch(process)
            desk.watcher.unwatch(process)
        assert opened == [process.pid]
        desk.watcher.watch(process)
        one.kill(0)
        await desk.arrived.wait()
        assert desk.events == [ProcessExited(process)]

    run(scene())


def test_lingering_ends(run: Make, family: Make):
    async def scene():
        desk, one = Desk(linger=0.0), family()
        process = living(one.pids[0])
        desk.watcher.watch(process)
        desk.watcher.unwatch(process)
        await emptied(desk.watcher)
        desk.watcher.watch(process)  # a new watch, as good as the first
        one.kill(0)
        await desk.arrived.wait()
        assert desk.events == [ProcessExited(process)]

    run(scene())


def test_a_lingering_process_dies_in_silence(run: Make, family: Make):
    async def scene():
        desk, one = Desk(), family()
        process = living(one.pids[0])
        desk.watcher.watch(process)
        desk.watcher.unwatch(process)
        one.kill(0)
        await emptied(desk.watcher)
        assert desk.events == []

    run(scene())


def test_closing_forgets_everybody(run: Make, family: Make):
    async def scene():
        desk, one, other = Desk(), family(), family()
        desk.watcher.watch(living(one.pids[0]))
        desk.watcher.watch(living(other.pids[0]))
        desk.watcher.unwatch(living(other.pids[0]))
        desk.watcher.close()
        one.kill(0)
        await turns()
        assert desk.events == []
        assert len(desk.watcher) == 0

    run(scene())


def test_descriptors_are_given_back(run: Make, family: Make):
    async def scene():
        desk, one = Desk(linger=0.0), family()
        before = open_descriptors()
        for _ in range(50):
            desk.watcher.watch(living(one.pids[0]))
            desk.watcher.unwatch(living(one.pids[0]))
            await emptied(desk.watcher)
        assert open_descriptors() == before

    run(scene())


def test_without_a_descriptor_a_process_is_polled(
    run: Make, family: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(processes, "POLL_SECONDS", 0.001)

    def refuse(_: int) -> int:
        raise OSError(24, "Too many open files")

    async def scene():
        desk, one, other = Desk(), family(), family()
        process = living(one.pids[0])
        monkeypatch.setattr(os, "pidfd_open", refuse)
        desk.watcher.watch(process)
        desk.watcher.watch(living(other.pids[0]))
        assert desk.watcher.trust(holder_of(process)) == process
        one.kill(0)
        await desk.arrived.wait()
        assert desk.events == [ProcessExited(process)]
        assert "has to be polled: pidfd_open said [Errno 24] Too many open files" in caplog.text
        desk.watcher.close()

    run(scene())


async def test_a_holder_that_tells_the_truth_is_trusted(family: Make):
    desk = Desk()
    process = living(family().pids[0])
    assert desk.watcher.trust(holder_of(process)) == process


@pytest.mark.parametrize(
    "lie",
    [
        {"pid": 0},
        {"pid": -1},
        {"pid_namespace": 0},
        {"pid_namespace": 1},
        {"process_start_ticks": 0},
        {"process_start_ticks": 1},
        {"pid": 2**22 + 1},
    ],
)
async def test_a_holder_that_does_not_is_not(family: Make, lie: dict[str, int]):
    desk = Desk()
    assert desk.watcher.trust(holder_of(living(family().pids[0]), **lie)) is None


async def test_a_dead_holder_is_not_trusted(family: Make):
    desk, one = Desk(), family()
    process = living(one.pids[0])
    one.kill(0)
    assert desk.watcher.trust(holder_of(process)) is None


async def test_a_watched_holder_is_not_looked_up_again(family: Make, monkeypatch: pytest.MonkeyPatch):
    desk = Desk()
    process = living(family().pids[0])
    desk.watcher.watch(process)
    monkeypatch.setattr(processes, "is_alive", lambda _: pytest.fail("looked up"))
    assert desk.watcher.trust(holder_of(process)) == process
    desk.watcher.close()


async def test_trust_is_refused_when_the_table_is_full(family: Make):
    desk = Desk(max_watches=1)
    one, other = living(family().pids[0]), living(family().pids[0])
    desk.watcher.watch(one)
    assert desk.watcher.trust(holder_of(other)) is None
    assert desk.watcher.trust(holder_of(one)) == one
    desk.watcher.unwatch(one)  # nobody wants it any more: it makes room
    assert desk.watcher.trust(holder_of(other)) == other
    desk.watcher.close()


async def test_without_pidfd_nobody_is_trusted(family: Make, monkeypatch: pytest.MonkeyPatch):
    process = living(family().pids[0])
    monkeypatch.delattr(os, "pidfd_open")
    assert Desk().watcher.trust(holder_of(process)) is None
