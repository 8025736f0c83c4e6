import asyncio
import logging
import math
import threading
from typing import Any

import pytest

from fakes.polling import async_until
from gpuarbiter_server.core import effects as fx
from gpuarbiter_server.core import events as ev
from gpuarbiter_server.core.arbiter import Arbiter
from gpuarbiter_server.core.errors import ArbiterError, ErrorReason
from gpuarbiter_server.core.model import AcquireRequest, EndReason, EventType, GpuReading, GpuRequest, Holder, ProcessId
from gpuarbiter_server.core.records import Closed, GpuSaved, LeaseDropped, LeaseSaved, Saved
from gpuarbiter_server.runtime import journal_writer
from gpuarbiter_server.runtime.journal_writer import JournalWriter
from gpuarbiter_server.runtime.runtime import Observer, Runtime
from server.runtime import journals
from support.logs import no_errors_logged
from support.server import GIB, NotingMachine, configured, gpu_specs

PROCESS = ProcessId(4711, 99)


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A runtime with a core, time that the test moves, and a machine that takes notes."""

    def __init__(
        self,
        *settings: str,
        monitored: bool = False,
        observers: tuple[Observer, ...] = (),
        stall: float = math.inf,
        journal: JournalWriter | None = None,
    ) -> None:
        self.clock = Clock()
        self.machine = NotingMachine()
        self.arbiter = Arbiter(
            gpu_specs(1, monitored=monitored),
            configured(*settings).settings(),
            self.clock(),
            first_token=1,
            id_key=b"k",
            instance_id="i",
            tokens_until=None if journal is None else 100,
        )
        self.serving: list[fx.Serving] = []
        self.runtime = Runtime(
            self.arbiter,
            clock=self.clock,
            observers=observers,
            stall=stall,
            journal=journal,
            on_serving=self.serving.append,
        )
        self.runtime.start(self.machine)

    def acquire(self, request_id: str = "", **fields: Any) -> "Stream":
        """An acquire, and what its stream is told."""
        fields.setdefault("holder", Holder("worker"))
        stream = Stream(self.runtime)
        self.runtime.submit(ev.Acquire(stream.call, AcquireRequest("ASR", request_id=request_id, **fields)))
        return stream

    async def turn(self) -> None:
        """Everything that is due has been done."""
        self.runtime._ring()
        for _ in range(5):
            await asyncio.sleep(0)


class Stream:
    def __init__(self, runtime: Runtime) -> None:
        self.told: list[fx.Effect] = []
        self.call = runtime.open(self.told.append)

    @property
    def kinds(self) -> list[str]:
        return [type(effect).__name__ for effect in self.told]

    @property
    def lease_id(self) -> str:
        return next(effect.lease.lease_id for effect in self.told if isinstance(effect, fx.Granted))


# -- stalls --


async def test_after_a_stall_nothing_expires_before_what_arrived_meanwhile_was_heard():
    bench = Bench(stall=0.5)
    held = bench.acquire("r", ttl=4.0, detached=True)
    await bench.turn()
    bench.runtime.close(held.call, delivered=True)
    await bench.turn()
    bench.clock.now += 10.0
    await bench.turn()
    # A renewal that lay in a socket all the while is read late, and counts.
    renewal = bench.runtime.ask(lambda call: ev.Renew(call, ev.Caller(), held.lease_id))
    assert isinstance(await renewal, fx.Renewed)
    bench.clock.now += 3.9
    await bench.turn()
    assert held.lease_id in bench.runtime.snapshot().leases[0].lease_id


async def test_after_a_stall_and_a_second_of_silence_time_counts():
    bench = Bench(stall=0.5)
    held = bench.acquire("r", ttl=4.0, detached=True)
    await bench.turn()
    bench.runtime.close(held.call, delivered=True)
    await bench.turn()
    bench.clock.now += 10.0
    await bench.turn()
    assert bench.runtime.snapshot().leases
    bench.clock.now += 1.1
    await bench.turn()
    assert not bench.runtime.snapshot().leases


# -- turns --


async def test_what_arrived_during_a_stall_is_handled_before_anything_expires():
    bench = Bench()
    stream = bench.acquire("r", ttl=10.0, detached=True)
    await bench.turn()
    bench.clock.now += 60.0
    answer = asyncio.ensure_future(bench.runtime.ask(lambda call: ev.Renew(call, ev.Caller(), stream.lease_id)))
    await bench.turn()
    assert isinstance(await answer, fx.Renewed)
    assert len(bench.runtime.snapshot().leases) == 1
    bench.clock.now += 10.0
    await bench.turn()
    assert bench.runtime.snapshot().leases == ()


async def test_events_are_handled_in_the_order_in_which_they_came():
    bench = Bench()
    first, second = bench.acquire(), bench.acquire(max_wait=5.0)
    await bench.turn()
    assert (first.kinds, second.kinds) == (["Granted"], ["Queued"])


async def test_a_turn_handles_all_that_has_come_at_once():
    bench = Bench()
    stream = bench.acquire("r")
    released = asyncio.ensure_future(bench.runtime.ask(lambda call: ev.Release(call, ev.Caller(), request_id="r")))
    await bench.turn()
    assert stream.kinds == ["Granted", "Ended"]
    assert (await released).reason is EndReason.RELEASED  # type: ignore[union-attr]


async def test_time_alone_brings_a_turn_when_the_core_wants_one():
    bench = Bench()
    bench.acquire()
    waiting = bench.acquire(max_wait=0.05)
    await asyncio.sleep(0)
    bench.clock.now += 0.05
    await async_until(lambda: "Failed" in waiting.kinds)


async def test_without_a_deadline_no_timer_is_set():
    bench = Bench()
    await bench.turn()
    assert bench.runtime._timer is None
    stream = bench.acquire(max_hold=100.0)
    await bench.turn()
    assert bench.runtime._timer is not None
    bench.runtime.close(stream.call, delivered=False)
    bench.clock.now += 1000.0
    await bench.turn()
    assert bench.runtime._timer is None


async def test_a_timer_that_rings_while_a_turn_is_planned_plans_no_second_one():
    bench = Bench()
    stream = bench.acquire()
    bench.runtime._ring()
    bench.runtime._ring()
    await bench.turn()
    assert stream.kinds == ["Granted"]


async def test_events_of_other_threads_are_handled_by_the_loops():
    bench = Bench(monitored=True)
    handled_by = []

    class Here:
        def observe(self, _: fx.Recorded) -> None:
            handled_by.append(threading.get_ident())

    bench.runtime._observers.append(Here())
    failed = ev.GpuFailed("gpu:0", "gone")
    thread = threading.Thread(target=bench.runtime.submit_threadsafe, args=(failed,))
    thread.start()
    thread.join()
    await async_until(lambda: handled_by)
    assert handled_by == [threading.get_ident()]


def test_events_of_threads_that_outlive_the_loop_are_dropped():
    async def make() -> Runtime:
        return Bench().runtime

    runtime = asyncio.run(make())
    runtime.submit_threadsafe(ev.GpuFailed("gpu:0", "gone"))
    assert not runtime._inbox


# -- calls --


async def test_a_call_is_forgotten_with_its_last_answer():
    bench = Bench()
    stream = bench.acquire()
    await bench.turn()
    assert set(bench.runtime._calls) == {stream.call}
    await asyncio.gather(bench.turn(), bench.runtime.ask(lambda call: ev.Release(call, ev.Caller(), stream.lease_id)))
    assert not bench.runtime._calls
    bench.runtime.close(stream.call, delivered=True)
    assert not bench.runtime._inbox, "closing what is closed is no event"


async def test_a_detached_call_stays_until_its_granted_is_written():
    bench = Bench()
    stream = bench.acquire("r", ttl=10.0, detached=True)
    await bench.turn()
    assert set(bench.runtime._calls) == {stream.call}
    bench.runtime.close(stream.call, delivered=True)
    await bench.turn()
    assert len(bench.runtime.snapshot().leases) == 1


async def test_an_error_of_the_core_is_raised_where_it_was_asked():
    bench = Bench()
    with pytest.raises(ArbiterError) as refused:
        await bench.runtime.ask(lambda call: ev.CheckFence(call, "gpu:9", 1))
    assert refused.value.reason is ErrorReason.UNKNOWN_GPU


async def test_who_asked_may_be_gone_when_the_answer_comes():
    bench = Bench()
    asking = asyncio.ensure_future(bench.runtime.ask(lambda call: ev.CheckFence(call, "gpu:0", 1)))
    await asyncio.sleep(0)
    asking.cancel()
    await bench.turn()
    assert asking.cancelled()
    assert not bench.runtime._calls


async def test_hanging_up_ends_every_stream_and_touches_no_lease():
    bench = Bench()
    held, waiting = bench.acquire(), bench.acquire(max_wait=60.0)
    asking = asyncio.ensure_future(bench.runtime.ask(lambda call: ev.CheckFence(call, "gpu:0", 1)))
    await bench.turn()
    asking = asyncio.ensure_future(bench.runtime.ask(lambda call: ev.CheckFence(call, "gpu:0", 1)))
    await asyncio.sleep(0)
    bench.runtime.hang_up()
    with pytest.raises(ArbiterError) as refused:
        await asking
    assert refused.value.reason is ErrorReason.SHUTDOWN
    for stream in (held, waiting):
        last = stream.told[-1]
        assert isinstance(last, fx.Failed)
        assert (last.error.reason, last.error.retry_after) == (ErrorReason.SHUTDOWN, 1.0)
    assert not bench.runtime._calls
    assert len(bench.runtime.snapshot().leases) == 1
    bench.runtime.hang_up()


# -- a core that fails --


async def test_an_event_that_the_core_fails_on_costs_its_own_call_alone(monkeypatch: pytest.MonkeyPatch):
    bench = Bench()
    handle = bench.arbiter.handle

    def fail_on_fences(event: ev.Event, now: float) -> list[fx.Effect]:
        if isinstance(event, ev.CheckFence | ev.DriverChanged):
            raise ZeroDivisionError
        return handle(event, now)

    monkeypatch.setattr(bench.arbiter, "handle", fail_on_fences)
    with no_errors_logged() as errors:
        before = bench.acquire("before")
        asking = asyncio.ensure_future(bench.runtime.ask(lambda call: ev.CheckFence(call, "gpu:0", 1)))
        await asyncio.sleep(0)
        bench.runtime.submit(ev.DriverChanged(up=True))
        after = bench.acquire("after", max_wait=9.0)
        await bench.turn()
        assert (before.kinds, after.kinds) == (["Granted"], ["Queued"])
        with pytest.raises(ArbiterError, match="see its log"):
            await asking
        assert [record.exc_info is not None for record in errors] == [True, True]
        errors.clear()


async def test_an_acquire_that_the_core_fails_on_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch):
    bench = Bench()
    handle = bench.arbiter.handle

    def fail_after_acquires(event: ev.Event, now: float) -> list[fx.Effect]:
        effects = handle(event, now)
        if isinstance(event, ev.Acquire):
            raise ZeroDivisionError
        return effects

    monkeypatch.setattr(bench.arbiter, "handle", fail_after_acquires)
    with no_errors_logged() as errors:
        stream = bench.acquire()
        await bench.turn()
        assert stream.kinds == ["Failed"]
        errors.clear()
    assert bench.arbiter.idle
    assert not bench.runtime._calls


async def test_a_stream_that_fails_to_take_its_effect_costs_nobody_else_theirs():
    bench = Bench()

    def fail(effect: fx.Effect) -> None:
        raise ZeroDivisionError(effect)

    with no_errors_logged() as errors:
        call = bench.runtime.open(fail)
        bench.runtime.submit(ev.Acquire(call, AcquireRequest("ASR", Holder("worker"))))
        after = bench.acquire(max_wait=9.0)
        await bench.turn()
        assert after.kinds == ["Queued"]
        assert len(errors) == 1
        errors.clear()


# -- state --


async def test_who_waits_for_a_change_is_woken_by_one_and_not_before():
    bench = Bench()
    revision = bench.runtime.revision
    waiting = [asyncio.ensure_future(bench.runtime.changed_since(revision)) for _ in range(3)]
    await bench.turn()
    assert not any(waiter.done() for waiter in waiting)
    bench.acquire()
    await bench.turn()
    assert all(waiter.done() for waiter in waiting)
    await bench.runtime.changed_since(revision)


async def test_an_unknown_gpu_has_no_state():
    with pytest.raises(ArbiterError):
        Bench().runtime.snapshot(gpus=("gpu:9",))


async def test_idle_is_when_nobody_holds_or_waits():
    bench = Bench("cooldown=0s")
    await bench.runtime.until_idle()
    held, waiting = bench.acquire(), bench.acquire(max_wait=60.0)
    await bench.turn()
    idle = asyncio.ensure_future(bench.runtime.until_idle())
    for stream in (held, waiting):
        await bench.turn()
        assert not idle.done()
        bench.runtime.close(stream.call, delivered=True)
    await bench.turn()
    assert idle.done()


# -- effects --


class Noting:
    def __init__(self) -> None:
        self.seen: list[EventType] = []

    def observe(self, recorded: fx.Recorded) -> None:
        self.seen.append(recorded.type)


class Broken:
    def observe(self, recorded: fx.Recorded) -> None:
        raise ValueError(recorded)


async def test_an_observer_that_fails_disturbs_neither_the_core_nor_the_others(caplog: pytest.LogCaptureFixture):
    noting = Noting()
    bench = Bench(observers=(Broken(), noting))
    stream = bench.acquire()
    await bench.turn()
    assert stream.kinds == ["Granted"]
    assert noting.seen == [EventType.GRANTED]
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == "an observer failed on GRANTED"


async def test_the_machine_is_told_whom_to_watch_and_what_to_read():
    bench = Bench(monitored=True)
    bench.runtime.submit(ev.ReadingTaken("gpu:0", GpuReading(bench.clock(), 0, 24 * GIB, processes=())))
    stream = bench.acquire(holder=Holder("worker", process=PROCESS))
    await bench.turn()
    assert bench.machine.watched == {PROCESS}
    busy = GpuReading(bench.clock(), 23 * GIB, GIB, processes=())
    bench.runtime.submit(ev.ReadingTaken("gpu:0", busy))
    bench.runtime.close(stream.call, delivered=True)
    await bench.turn()
    assert bench.machine.watched == {PROCESS}, "its cooldown wants to know when it is gone"
    assert bench.machine.refreshed == [frozenset({"gpu:0"})]
    bench.runtime.submit(ev.ProcessExited(PROCESS))
    bench.clock.now += 0.1
    bench.runtime.submit(ev.ReadingTaken("gpu:0", GpuReading(bench.clock(), 23 * GIB, GIB, processes=())))
    await bench.turn()
    assert bench.machine.watched == set()
    waiting = bench.acquire(max_wait=60.0, gpu=GpuRequest(memory_bytes=20 * GIB))
    await bench.turn()
    assert waiting.kinds == ["Queued"]
    assert bench.machine.fast == frozenset({"gpu:0"})


# -- with a journal --


class Journaled(Bench):
    """The same with a journal whose store the test steers."""

    def __init__(self) -> None:
        self.store = journals.Store()
        self.writer = JournalWriter(self.store, journals.Noting(), retry=0.01)
        super().__init__(journal=self.writer)

    async def release(self, lease_id: str) -> fx.Effect:
        return await self.runtime.ask(lambda call: ev.Release(call, ev.Caller(), lease_id))

    async def end(self) -> None:
        self.store.fault = ""
        self.store.gate.set()
        await self.writer.close(5.0)


async def test_a_grant_is_told_once_it_is_written():
    bench = Journaled()
    bench.store.gate.clear()
    held = bench.acquire("r")
    await async_until(bench.store.entered.is_set, "for the commit to begin")
    await bench.turn()
    assert held.kinds == []
    bench.store.gate.set()
    await async_until(lambda: held.kinds == ["Granted"], "for the grant")
    assert isinstance(bench.store.commits[0][-1], LeaseSaved)
    await bench.end()


async def test_a_release_is_answered_once_it_is_written_and_renewals_go_on():
    bench = Journaled()
    first, second = bench.acquire("r", ttl=60.0), bench.acquire("s")
    await async_until(lambda: first.kinds == ["Granted"], "for the grant")
    bench.store.gate.clear()
    releasing = asyncio.create_task(bench.release(first.lease_id))
    await async_until(lambda: first.kinds[-1] == "Ended", "for it to be released")
    await bench.turn()
    assert not releasing.done()
    # Another call of the same time is not held up.
    fence = await bench.runtime.ask(lambda call: ev.CheckFence(call, "gpu:0", 1))
    assert isinstance(fence, fx.FenceChecked)
    bench.store.gate.set()
    assert isinstance(await releasing, fx.Released)
    await async_until(lambda: second.kinds[-1] == "Granted", "for the next grant")
    await bench.end()


async def test_an_early_release_is_answered_before_it_is_written_and_goes_along_with_the_next_grant(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(journal_writer, "LEISURE_SECONDS", 3600.0)
    bench = Journaled()
    held = bench.acquire("r")
    await async_until(lambda: held.kinds == ["Granted"], "for the grant")
    written = len(bench.store.commits)
    told: list[fx.Effect] = []
    call = bench.runtime.open(told.append, early=True)
    bench.runtime.submit(ev.Release(call, ev.Caller(), held.lease_id))
    await bench.turn()
    assert [type(effect) for effect in told] == [fx.Released]
    assert len(bench.store.commits) == written
    granted = bench.acquire("s")
    await async_until(lambda: granted.kinds == ["Granted"], "for the grant")
    assert [type(change) for change in bench.store.commits[written]] == [Closed, GpuSaved, LeaseSaved]
    await bench.end()


async def test_the_release_of_a_lease_that_a_crash_would_leave_for_its_ttl_is_not_answered_early():
    bench = Journaled()
    held = bench.acquire("r", ttl=60.0)
    await async_until(lambda: held.kinds == ["Granted"], "for the grant")
    bench.store.gate.clear()
    told: list[fx.Effect] = []
    call = bench.runtime.open(told.append, early=True)
    bench.runtime.submit(ev.Release(call, ev.Caller(), held.lease_id))
    await async_until(bench.store.entered.is_set, "for the commit to begin")
    await bench.turn()
    assert told == []
    bench.store.gate.set()
    await async_until(lambda: bool(told), "for the answer")
    await bench.end()


async def test_who_asks_for_a_release_that_was_answered_early_waits_until_it_is_written(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(journal_writer, "LEISURE_SECONDS", 3600.0)
    bench = Journaled()
    held = bench.acquire("r")
    await async_until(lambda: held.kinds == ["Granted"], "for the grant")
    bench.runtime.submit(ev.Release(bench.runtime.open(lambda _: None, early=True), ev.Caller(), held.lease_id))
    await bench.turn()
    written = len(bench.store.commits)
    again = await bench.release(held.lease_id)
    assert isinstance(again, fx.Released)
    assert again.already_ended
    assert len(bench.store.commits) == written + 1
    await bench.end()


async def test_when_writing_fails_what_was_done_is_answered_and_grants_are_refused():
    bench = Journaled()
    held = bench.acquire("r")
    await async_until(lambda: held.kinds == ["Granted"], "for the grant")
    bench.store.fault = "No space left on device"
    assert isinstance(await bench.release(held.lease_id), fx.Released)
    assert [serving.up for serving in bench.serving] == [False]
    refused = bench.acquire("s")
    await bench.turn()
    assert isinstance(refused.told[0], fx.Failed)
    assert refused.told[0].error.reason is ErrorReason.JOURNAL_UNAVAILABLE
    bench.store.fault = ""
    await async_until(lambda: len(bench.serving) == 2, "for the journal to be back")
    granted = bench.acquire("t")
    await async_until(lambda: granted.kinds == ["Granted"], "for the grant")
    await bench.runtime.until_settled()
    await bench.end()


async def test_changes_of_the_turn_in_which_writing_fails_are_not_waited_for():
    bench = Journaled()
    held = bench.acquire("r")
    await async_until(lambda: held.kinds == ["Granted"], "for the grant")
    bench.writer._on_failed(bench.writer._life, "bad")
    bench.runtime._inbox.rotate(1)
    releasing = asyncio.create_task(bench.release(held.lease_id))
    assert isinstance(await releasing, fx.Released)
    await bench.end()


async def test_a_release_before_the_news_of_a_failure_is_answered_with_it():
    bench = Journaled()
    held = bench.acquire("r")
    await async_until(lambda: held.kinds == ["Granted"], "for the grant")
    releasing = asyncio.ensure_future(bench.release(held.lease_id))
    await asyncio.sleep(0)
    bench.writer._on_failed(bench.writer._life, "bad")
    assert isinstance(await releasing, fx.Released)
    await bench.end()


async def test_what_is_left_is_taken_up_and_written_before_anything_else():
    bench = Journaled()
    held = bench.acquire("r")
    await async_until(lambda: held.kinds == ["Granted"], "for the grant")
    saved = bench.store.commits[0][-1]
    assert isinstance(saved, LeaseSaved)
    await bench.end()
    after = Journaled()
    await after.runtime.recover(ev.Recover(Saved(leases=(saved.lease,))))
    assert [lease.lease_id for lease in after.runtime.snapshot().leases] == [held.lease_id]
    assert isinstance(after.store.commits[0][0], LeaseSaved)
    await after.end()


async def test_where_nothing_is_left_nothing_is_waited_for():
    bench = Journaled()
    await bench.runtime.recover(ev.Recover(Saved()))
    assert not bench.store.commits
    await bench.end()


async def test_without_a_journal_nothing_is_to_be_saved():
    bench = Bench()
    with pytest.raises(AssertionError):
        bench.runtime._carry_out(fx.Save(1, LeaseDropped("x")))


async def test_a_release_again_is_answered_no_earlier_than_the_first():
    bench = Journaled()
    held = bench.acquire("r")
    await async_until(lambda: held.kinds == ["Granted"], "for the grant")
    bench.store.gate.clear()
    first = asyncio.create_task(bench.release(held.lease_id))
    await async_until(lambda: held.kinds[-1] == "Ended", "for it to be released")
    second = asyncio.create_task(bench.release(held.lease_id))
    await bench.turn()
    assert not second.done()
    bench.store.gate.set()
    assert [answer.already_ended for answer in await asyncio.gather(first, second)] == [False, True]  # type: ignore[union-attr]
    await bench.end()


async def resizing(bench: Journaled, lease_id: str) -> "asyncio.Task[fx.Effect]":
    return asyncio.create_task(bench.runtime.ask(lambda call: ev.Resize(call, ev.Caller(), lease_id, memory_bytes=GIB)))


async def test_a_resize_that_a_failure_left_open_is_answered_once_it_is_written():
    bench = Journaled()
    held = bench.acquire("r")
    await async_until(lambda: held.kinds == ["Granted"], "for the grant")
    bench.store.fault = "bad"
    answer = await resizing(bench, held.lease_id)
    await async_until(lambda: bool(bench.serving), "for the failure")
    await bench.turn()
    assert not answer.done()
    bench.store.fault = ""
    assert isinstance(await answer, fx.Resized)
    assert bench.serving[-1].up
    await bench.end()


async def test_a_resize_in_the_turn_of_a_failure_is_no_exception():
    bench = Journaled()
    held = bench.acquire("r")
    await async_until(lambda: held.kinds == ["Granted"], "for the grant")
    answer = await resizing(bench, held.lease_id)
    await asyncio.sleep(0)
    bench.writer._on_failed(bench.writer._life, "bad")
    await async_until(lambda: [serving.up for serving in bench.serving] == [False, True], "for it to be back")
    assert isinstance(await answer, fx.Resized)
    await bench.end()


async def test_while_a_hanging_disk_is_written_anew_releases_are_answered():
    bench = Journaled()
    first, second = bench.acquire("r"), bench.acquire("s")
    await async_until(lambda: first.kinds == ["Granted"], "for the grant")
    bench.store.fault = "bad"
    assert isinstance(await bench.release(first.lease_id), fx.Released)
    bench.store.gate.clear()
    bench.store.fault = ""
    bench.store.entered.clear()
    await async_until(bench.store.entered.is_set, "for it to be written anew")
    assert isinstance(await bench.release(first.lease_id), fx.Released)
    assert second.kinds[-1] != "Granted"
    bench.store.gate.set()
    await async_until(lambda: second.kinds[-1] == "Granted", "for the next grant")
    await bench.end()


async def recovered(bench: Journaled) -> str:
    """A bench whose journal holds a lease of before; its id."""
    before = Journaled()
    held = before.acquire("r", ttl=60.0)
    await async_until(lambda: held.kinds == ["Granted"], "for the grant")
    saved = before.store.commits[0][-1]
    assert isinstance(saved, LeaseSaved)
    await before.end()
    await bench.runtime.recover(ev.Recover(Saved(leases=(saved.lease,))))
    return held.lease_id


async def test_a_renewal_that_ends_the_wait_for_a_holder_is_answered_once_it_is_written():
    bench = Journaled()
    lease_id = await recovered(bench)
    bench.store.gate.clear()
    renewing = asyncio.create_task(bench.runtime.ask(lambda call: ev.Renew(call, ev.Caller(), lease_id)))
    await bench.turn()
    await bench.turn()
    assert not renewing.done()
    bench.store.gate.set()
    assert isinstance(await renewing, fx.Renewed)
    bench.store.gate.clear()
    # The next one says nothing new.
    assert isinstance(await bench.runtime.ask(lambda call: ev.Renew(call, ev.Caller(), lease_id)), fx.Renewed)
    await bench.end()


async def test_what_a_joining_stream_is_told_waits_together():
    bench = Journaled()
    lease_id = await recovered(bench)
    bench.store.gate.clear()
    joined = bench.acquire("r", ttl=60.0)
    await bench.turn()
    bench.runtime.submit(ev.Revoke(bench.runtime.open(lambda _: None), lease_id, 5.0))
    await bench.turn()
    assert joined.kinds == []
    bench.store.gate.set()
    await async_until(lambda: joined.kinds == ["Granted", "YieldRequested"], "for the grant and what came after it")
    await bench.end()


async def test_a_core_that_cannot_take_up_what_is_left_does_not_start(monkeypatch: pytest.MonkeyPatch):
    bench = Journaled()
    monkeypatch.setattr(Arbiter, "handle", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        await bench.runtime.recover(ev.Recover(Saved()))
    await bench.end()
