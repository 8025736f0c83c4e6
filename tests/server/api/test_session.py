"""Session: everything over one stream, by call_id."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import grpc
import pytest

from fakes.polling import async_until
from gpuarbiter.v1 import error_pb2, lease_pb2
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter_server.api import session as session_module
from support.messages import acquire, holder, release, seconds
from support.refusals import refusal
from support.server import InProcess, rest_of, serving

SIXTY = seconds(60)


class Client:
    """The client's end of a session."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self._numbers = count(2)
        # One write at a time, says gRPC.
        self._writing = asyncio.Lock()

    async def send(self, **call: Any) -> int:
        """Sends a call; returns its id."""
        call_id = call.pop("call_id", None) or next(self._numbers)
        async with self._writing:
            await self.call.write(pb.SessionRequest(call_id=call_id, **call))
        return call_id

    async def read(self) -> Any:
        """The next answer."""
        answer = await self.call.read()
        assert answer is not grpc.aio.EOF, "the session has ended"
        return answer

    async def ask(self, **call: Any) -> Any:
        """Sends a call; returns the next answer, which must be its."""
        call_id = await self.send(**call)
        answer = await self.read()
        assert answer.call_id == call_id, answer
        return answer

    async def granted(self, **fields: Any) -> tuple[int, Any]:
        """A lease, and the call that it runs under."""
        request = acquire(**fields)
        request.ClearField("holder")
        answer = await self.ask(acquire=request)
        return answer.call_id, answer.acquire.granted.lease

    async def queued(self, request_id: str = "", **fields: Any) -> int:
        """A request that waits."""
        answer = await self.ask(acquire=acquire(request_id, **{"max_wait": 60, **fields}))
        assert answer.acquire.HasField("queued")
        return answer.call_id


async def opened(arbiter: InProcess, client_id: str = "worker-0") -> Client:
    call = arbiter.stub.Session()
    await call.write(pb.SessionRequest(call_id=1, open={"holder": holder(client_id), "user_agent": "test/1"}))
    assert (await call.read()).HasField("opened")
    return Client(call)


@asynccontextmanager
async def session(*settings: str, gpus: int = 1) -> AsyncIterator[tuple[InProcess, Client]]:
    async with serving(*settings, gpus=gpus) as arbiter:
        client = await opened(arbiter)
        yield arbiter, client
        client.call.cancel()


def kind(answer: Any) -> str:
    """Of an acquire, its event; else what the answer is."""
    event = answer.acquire.WhichOneof("event")
    return event or answer.WhichOneof("answer")


# -- opening --


async def test_a_session_says_whom_it_is_with():
    async with serving() as arbiter:
        ids = set()
        for _ in range(3):
            call = arbiter.stub.Session()
            await call.write(pb.SessionRequest(call_id=7, open={"holder": holder()}))
            answer = await call.read()
            assert answer.call_id == 7
            assert (answer.opened.instance_id, answer.opened.epoch) == ("instance-1", 1)
            ids.add(answer.opened.session_id)
            await call.done_writing()
            assert await rest_of(call) == []
        assert len(ids) == 3


@pytest.mark.parametrize(
    "first",
    [
        pb.SessionRequest(call_id=1, acquire=acquire()),
        pb.SessionRequest(call_id=1, check_fence={"gpu": "gpu:0", "fencing_token": 1}),
        pb.SessionRequest(call_id=1, cancel={}),
    ],
    ids=["acquire", "check_fence", "cancel"],
)
async def test_the_first_message_must_open(first: pb.SessionRequest):
    async with serving() as arbiter:
        call = arbiter.stub.Session()
        await call.write(first)
        answer = await refusal(call.read())
        assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, {"open"})


async def test_an_opening_without_a_call_is_invalid_too():
    async with serving() as arbiter:
        call = arbiter.stub.Session()
        await call.write(pb.SessionRequest(call_id=1))
        answer = await refusal(call.read())
        assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, {"call"})


async def test_a_session_that_ends_before_it_opens_is_invalid():
    async with serving() as arbiter:
        call = arbiter.stub.Session()
        await call.done_writing()
        answer = await refusal(call.read())
        assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, {"open"})


async def test_a_second_opening_fails_that_call_alone():
    async with session() as (_, client):
        answer = await client.ask(open={"holder": holder("other")})
        assert answer.failure.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert [violation.field for violation in answer.failure.violations] == ["open"]
        assert (await client.ask(check_fence={"gpu": "0", "fencing_token": 1})).HasField("check_fence")


# -- calls --


async def test_all_calls_work_in_a_session():
    async with session() as (_, client):
        acquire_id, lease = await client.granted(max_hold=60)
        named = {"lease_id": lease.lease_id, "fencing_token": lease.fencing_token}
        renewed = (await client.ask(renew={**named, "extend_hold": SIXTY})).renew
        assert renewed.HasField("hold_remaining")
        resized = (await client.ask(resize={**named, "memory_bytes": 5})).resize
        assert resized.lease.gpus[0].declared_bytes == 5
        fence = (await client.ask(check_fence={"gpu": "gpu:0", "fencing_token": lease.fencing_token})).check_fence
        assert (fence.current, fence.newest_token) == (True, lease.fencing_token)
        report = {"task_type": "ASR", "holder": holder(), "report": {"work_items": 1}}
        assert (await client.ask(report_work=report)).HasField("report_work")
        release_id = await client.send(release=named)
        ended, released = await client.read(), await client.read()
        assert (ended.call_id, kind(ended)) == (acquire_id, "ended")
        assert (released.call_id, released.release.reason) == (release_id, lease_pb2.END_REASON_RELEASED)


async def test_the_holder_of_the_session_stands_in_for_one_that_is_not_named():
    async with session(gpus=2) as (_, client):
        _, lease = await client.granted()
        assert lease.holder.client_id == "worker-0"
        answer = await client.ask(acquire=acquire(client="another"))
        assert answer.acquire.granted.lease.holder.client_id == "another"


async def test_calls_in_a_row_are_answered_in_their_order():
    async with session() as (_, client):
        expected = []
        for number in range(50):
            acquire_id = await client.send(acquire=acquire(f"r-{number}"))
            release_id = await client.send(release={"request_id": f"r-{number}"})
            expected += [(acquire_id, "granted"), (acquire_id, "ended"), (release_id, "release")]
        answers = [await client.read() for _ in expected]
        assert [(answer.call_id, kind(answer)) for answer in answers] == expected
        tokens = [answer.acquire.granted.lease.fencing_token for answer in answers if kind(answer) == "granted"]
        assert tokens == sorted(set(tokens))


async def test_a_failed_call_does_not_end_the_session():
    async with session() as (_, client):
        answer = await client.ask(release={"lease_id": "nonsense"})
        assert answer.failure.code == grpc.StatusCode.NOT_FOUND.value[0]
        assert answer.failure.reason == error_pb2.ERROR_REASON_UNKNOWN_LEASE
        answer = await client.ask(acquire=acquire(gpu={"candidates": ["gpu:9"]}))
        assert answer.failure.reason == error_pb2.ERROR_REASON_UNKNOWN_GPU
        answer = await client.ask(acquire=acquire(priority=101))
        assert [violation.field for violation in answer.failure.violations] == ["acquire.priority"]
        answer = await client.ask()
        assert [violation.field for violation in answer.failure.violations] == ["call"]
        await client.granted()


async def test_a_call_id_in_use_fails_that_call_and_one_that_is_closed_is_free_again():
    async with session() as (_, client):
        call_id, lease = await client.granted()
        answer = await client.ask(call_id=call_id, acquire=acquire())
        assert [violation.field for violation in answer.failure.violations] == ["call_id"]
        await client.send(release={"lease_id": lease.lease_id})
        assert [kind(await client.read()) for _ in range(2)] == ["ended", "release"]
        answer = await client.ask(call_id=call_id, acquire=acquire())
        assert kind(answer) == "granted"
        assert (await client.ask(call_id=1, check_fence={"gpu": "0", "fencing_token": 1})).HasField("check_fence")


async def test_a_wait_can_time_out_and_be_declined_within_a_session():
    async with session() as (arbiter, client):
        await client.granted(max_hold=0)
        waiting = await client.queued(max_wait=1)
        skipping = await client.queued(max_wait=1, busy_policy=lease_pb2.BUSY_POLICY_SKIP)
        await arbiter.advance(1.0)
        answers: dict[int, Any] = {}
        while len(answers) < 2:
            answer = await client.read()
            # The second moves up when the first is out of its way.
            if kind(answer) != "queued":
                answers[answer.call_id] = answer
        failure = answers[waiting].failure
        assert (failure.code, failure.reason) == (8, error_pb2.ERROR_REASON_WAIT_TIMEOUT)
        assert failure.HasField("retry_after")
        assert kind(answers[skipping]) == "declined"


# -- cancel --


async def test_a_waiting_acquire_can_be_cancelled():
    async with session() as (arbiter, client):
        await client.granted()
        waiting = await client.queued()
        cancel_id = await client.send(cancel={"acquire_call_id": waiting})
        failed, released = await client.read(), await client.read()
        assert (failed.call_id, failed.failure.reason) == (waiting, error_pb2.ERROR_REASON_CANCELLED)
        assert (released.call_id, released.release.reason) == (cancel_id, lease_pb2.END_REASON_CANCELLED)
        assert not released.release.already_ended
        assert arbiter.runtime.snapshot().queue_length == 0


async def test_a_held_lease_can_be_cancelled():
    async with session() as (arbiter, client):
        call_id, _ = await client.granted()
        cancel_id = await client.send(cancel={"acquire_call_id": call_id})
        ended, released = await client.read(), await client.read()
        assert (ended.call_id, ended.acquire.ended.reason) == (call_id, lease_pb2.END_REASON_RELEASED)
        assert (released.call_id, released.release.reason) == (cancel_id, lease_pb2.END_REASON_RELEASED)
        assert not arbiter.runtime.snapshot().leases


async def test_cancelling_what_has_ended_says_how():
    async with session() as (_, client):
        call_id, lease = await client.granted()
        await client.send(release={"lease_id": lease.lease_id})
        assert [kind(await client.read()) for _ in range(2)] == ["ended", "release"]
        answer = (await client.ask(cancel={"acquire_call_id": call_id})).release
        assert (answer.already_ended, answer.reason) == (True, lease_pb2.END_REASON_RELEASED)
        failed = await client.ask(acquire=acquire(gpu={"count": 5}))
        answer = (await client.ask(cancel={"acquire_call_id": failed.call_id})).release
        assert (answer.already_ended, answer.reason) == (True, lease_pb2.END_REASON_CANCELLED)


async def test_an_acquire_that_never_was_cannot_be_cancelled():
    async with session() as (_, client):
        other = await client.ask(check_fence={"gpu": "0", "fencing_token": 1})
        for call_id in (other.call_id, 999, 0):
            answer = await client.ask(cancel={"acquire_call_id": call_id})
            assert answer.failure.reason == error_pb2.ERROR_REASON_UNKNOWN_LEASE


async def test_what_ended_long_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(session_module, "_REMEMBERED", 2)
    async with session() as (_, client):
        failed = [(await client.ask(acquire=acquire(gpu={"count": 5}))).call_id for _ in range(3)]
        answers = [await client.ask(cancel={"acquire_call_id": call_id}) for call_id in failed]
        assert [answer.WhichOneof("answer") for answer in answers] == ["failure", "release", "release"]


# -- detached --


async def test_a_detached_lease_closes_its_call_and_outlives_the_session():
    async with session("cooldown=0s") as (arbiter, client):
        request = acquire("r", detached=True, ttl=30)
        answer = await client.ask(acquire=request)
        lease = answer.acquire.granted.lease
        again = await client.ask(call_id=answer.call_id, acquire=request)
        assert again.acquire.granted.lease.lease_id == lease.lease_id
        await client.call.done_writing()
        assert await rest_of(client.call) == []
        await arbiter.at_rest()
        await arbiter.advance(29.0)
        assert [view.lease_id for view in arbiter.runtime.snapshot().leases] == [lease.lease_id]
        await arbiter.advance(1.0)
        assert not arbiter.runtime.snapshot().leases


async def test_a_detached_lease_can_be_cancelled_by_the_call_that_asked_for_it():
    async with session() as (arbiter, client):
        answer = await client.ask(acquire=acquire("r", detached=True, ttl=30))
        released = (await client.ask(cancel={"acquire_call_id": answer.call_id})).release
        assert (released.already_ended, released.reason) == (False, lease_pb2.END_REASON_RELEASED)
        assert not arbiter.runtime.snapshot().leases


# -- the end --


@pytest.mark.parametrize("how", ["half-close", "cancel"])
async def test_when_the_client_is_gone_each_acquire_fares_as_one_whose_stream_broke(how: str):
    async with session("cooldown=0s", gpus=2) as (arbiter, client):
        await client.granted(max_hold=0)
        _, named = await client.granted(request_id="held", max_hold=0)
        await client.queued()
        await client.queued("waiting")
        if how == "cancel":
            client.call.cancel()
        else:
            await client.call.done_writing()
            assert await rest_of(client.call) == []
        await arbiter.at_rest()
        view = arbiter.runtime.snapshot()
        assert [lease.lease_id for lease in view.leases] == [named.lease_id]
        assert [ticket.request_id for ticket in view.queue] == ["waiting"]
        another = await opened(arbiter)
        _, again = await another.granted(request_id="held", max_hold=0)
        assert again.lease_id == named.lease_id
        another.call.cancel()
        await arbiter.at_rest()
        await arbiter.advance(5.0)
        view = arbiter.runtime.snapshot()
        assert (view.leases, view.queue) == ((), ())


async def test_what_was_asked_before_the_half_close_is_answered():
    async with serving() as arbiter:
        for _ in range(20):
            call = arbiter.stub.Session()
            await call.write(pb.SessionRequest(call_id=1, open={"holder": holder()}))
            for number in range(2, 12):
                await call.write(pb.SessionRequest(call_id=number, check_fence={"gpu": "0", "fencing_token": 1}))
            await call.done_writing()
            assert [answer.call_id for answer in await rest_of(call)] == list(range(1, 12))


async def test_what_was_asked_before_an_undecodable_message_is_answered():
    async with serving() as arbiter:
        call = arbiter.channel.stream_stream("/gpuarbiter.v1.GpuArbiter/Session")()
        for message in (
            pb.SessionRequest(call_id=1, open={"holder": holder()}),
            pb.SessionRequest(call_id=2, check_fence={"gpu": "0", "fencing_token": 1}),
            pb.SessionRequest(call_id=3, acquire=acquire()),
        ):
            await call.write(message.SerializeToString())
        await call.write(b"\xff")
        first, second = [pb.SessionResponse.FromString(await call.read()) for _ in range(2)]
        assert (first.call_id, second.call_id) == (1, 2)
        with pytest.raises(grpc.RpcError) as broken:
            await rest_of(call)
        assert broken.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        await async_until(lambda: not arbiter.runtime.snapshot().leases)


async def test_another_stream_may_take_an_acquire_of_a_session_over():
    async with session() as (arbiter, client):
        call_id, lease = await client.granted(request_id="r")
        stream, again = await arbiter.granted(acquire("r"))
        assert again.lease_id == lease.lease_id
        answer = await client.read()
        assert (answer.call_id, answer.failure.reason) == (call_id, error_pb2.ERROR_REASON_SUPERSEDED)
        client.call.cancel()
        await async_until(lambda: len(arbiter.runtime._calls) == 1)
        assert len((await arbiter.snapshot()).leases) == 1, "the session's end is no business of it any more"
        await arbiter.stub.Release(release(lease))
        assert len(await rest_of(stream)) == 1


async def test_many_calls_in_flight_are_all_answered():
    gpus = 16
    async with session("queue_limit=1000", gpus=gpus) as (arbiter, client):
        total = 600

        async def send() -> None:
            for number in range(total):
                await client.send(call_id=1000 + number, acquire=acquire(max_wait=60, max_hold=0))

        sending = asyncio.create_task(send())
        served = set()
        while len(served) < total:
            answer = await client.read()
            if kind(answer) == "granted":
                await client.send(release={"lease_id": answer.acquire.granted.lease.lease_id})
            elif kind(answer) == "ended":
                served.add(answer.call_id)
            else:
                assert kind(answer) in ("queued", "release")
        await sending
        assert served == set(range(1000, 1000 + total))
        assert not arbiter.runtime.snapshot().queue


# -- a client that does not read --


class SilentContext:
    """A stream whose client sends what the test puts in, and reads only as much as it is told to."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[Any] = asyncio.Queue()
        self.written: list[pb.SessionResponse] = []
        self.room = asyncio.Semaphore(0)

    async def read(self) -> Any:
        return await self.requests.get()

    async def write(self, message: pb.SessionResponse) -> None:
        await self.room.acquire()
        # As it is at this moment: that is what goes over the wire.
        self.written.append(pb.SessionResponse.FromString(message.SerializeToString()))

    def put(self, call_id: int, **call: Any) -> None:
        self.requests.put_nowait(pb.SessionRequest(call_id=call_id, **call))

    def let_through(self, count_: int) -> None:
        for _ in range(count_):
            self.room.release()


@asynccontextmanager
async def silent_session(arbiter: InProcess) -> AsyncIterator[tuple[SilentContext, Any]]:
    context = SilentContext()
    context.put(1, open={"holder": holder()})
    task = asyncio.create_task(arbiter.service.session(None, context))
    yield context, task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def idle() -> None:
    """Whatever can happen without anything new has happened."""
    for _ in range(30):
        await asyncio.sleep(0)


async def test_no_more_calls_are_read_from_a_client_that_does_not_read_answers():
    async with serving() as arbiter, silent_session(arbiter) as (context, _):
        for number in range(3000):
            context.put(2 + number, check_fence={"gpu": "0", "fencing_token": 1})
        await async_until(lambda: context.requests.qsize() < 2000)
        await idle()
        left = context.requests.qsize()
        assert left > 1900, "it stopped reading"
        context.let_through(5000)
        await async_until(lambda: len(context.written) == 3001)
        assert [answer.call_id for answer in context.written] == list(range(1, 3002))


async def test_a_client_that_does_not_read_gets_the_latest_place_in_the_queue_and_no_backlog():
    async with serving() as arbiter:
        await arbiter.granted(acquire(client="other", max_hold=0))
        async with silent_session(arbiter) as (context, _):
            context.put(2, acquire=acquire(max_wait=3600))
            await idle()
            ahead = [(await arbiter.queued(acquire(priority=90, max_wait=3600)))[0] for _ in range(3)]
            for _ in range(20):
                await arbiter.advance(10.0)
            context.let_through(100)
            await idle()
            assert [answer.call_id for answer in context.written] == [1, 2]
            assert context.written[1].acquire.queued.position == 4
            ahead[0].cancel()
            await async_until(lambda: arbiter.runtime.snapshot().queue_length == 3)
            await arbiter.advance(10.0)
            await idle()
            assert context.written[2].acquire.queued.position == 3, "what was written is not changed any more"
            for each in ahead:
                each.cancel()


async def test_a_grant_that_was_not_written_before_the_client_left_is_taken_back():
    async with serving("cooldown=15s") as arbiter, silent_session(arbiter) as (context, task):
        context.put(2, acquire=acquire())
        context.put(3, acquire=acquire("r", detached=True, ttl=30))
        context.put(4, check_fence={"gpu": "0", "fencing_token": 1})
        await idle()
        assert len(arbiter.runtime.snapshot().leases) == 1
        context.requests.put_nowait(grpc.aio.EOF)
        await idle()
        assert not arbiter.runtime.snapshot().leases
        context.let_through(100)
        await task
        assert [answer.call_id for answer in context.written] == [1, 4]
        call, _ = await arbiter.granted(acquire(max_wait=0))
        call.cancel()


async def test_a_grant_that_was_being_written_when_the_client_left_counts_as_held():
    async with serving("cooldown=15s") as arbiter, silent_session(arbiter) as (context, task):
        context.let_through(1)
        context.put(2, acquire=acquire("r"))
        await idle()
        context.requests.put_nowait(grpc.aio.EOF)
        await idle()
        (lease,) = arbiter.runtime.snapshot().leases
        assert lease.request_id == "r"
        context.let_through(1)
        await task
        assert [kind(answer) for answer in context.written] == ["opened", "granted"]


async def test_a_detached_grant_that_was_being_written_when_the_client_left_lives_by_its_ttl():
    async with serving("cooldown=0s") as arbiter, silent_session(arbiter) as (context, task):
        context.let_through(1)
        context.put(2, acquire=acquire("r", detached=True, ttl=30))
        await idle()
        context.requests.put_nowait(grpc.aio.EOF)
        await idle()
        assert not arbiter.runtime._calls
        context.let_through(1)
        await task
        assert len(arbiter.runtime.snapshot().leases) == 1
        await arbiter.advance(30.0)
        assert not arbiter.runtime.snapshot().leases


async def test_hanging_up_before_a_last_granted_is_written_closes_every_call():
    async with serving(gpus=2) as arbiter, silent_session(arbiter) as (context, task):
        context.put(2, acquire=acquire("r", detached=True, ttl=30))
        context.put(3, acquire=acquire())
        await idle()
        arbiter.runtime.hang_up()
        context.let_through(100)
        await idle()
        assert [(answer.call_id, kind(answer)) for answer in context.written] == [
            (1, "opened"),
            (2, "granted"),
            (3, "granted"),
            (3, "failure"),
        ]
        assert context.written[-1].failure.reason == error_pb2.ERROR_REASON_SHUTDOWN
        assert not task.done()


async def test_a_defect_while_reading_is_not_taken_for_the_end(logged_errors: list[Any]):
    async with serving() as arbiter, silent_session(arbiter) as (context, task):
        context.let_through(10)
        context.requests.put_nowait(object())
        with pytest.raises(AttributeError):
            await task
    assert logged_errors == []
