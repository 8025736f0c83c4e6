"""Session: everything over one stream, by call_id."""

from typing import Any

import grpc
import pytest

from gpuarbiter.v1 import error_pb2, lease_pb2
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter_server.api import session as session_module
from support.messages import acquire, holder, seconds
from support.refusals import refusal
from support.server import rest_of, serving

from .sessions import kind, opened, session

SIXTY = seconds(60)


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


# -- requests in another's name --


async def test_a_release_by_request_id_reaches_an_acquire_of_the_session_that_names_its_own_holder():
    async with session() as (_, client):
        answer = await client.ask(acquire=acquire("theirs", client="another"))
        assert kind(answer) == "granted"
        await client.send(release={"request_id": "theirs"})
        assert {kind(await client.read()) for _ in range(2)} == {"ended", "release"}


async def test_a_late_cancel_of_a_call_that_was_superseded_leaves_the_lease_alone():
    async with session() as (arbiter, client):
        call_id, lease = await client.granted(request_id="r")
        other = await opened(arbiter)
        _, joined = await other.granted(request_id="r")
        assert joined.lease_id == lease.lease_id
        superseded = await client.read()
        assert superseded.failure.reason == error_pb2.ERROR_REASON_SUPERSEDED
        answer = await client.ask(cancel={"acquire_call_id": call_id})
        assert answer.release.already_ended
        assert [held.lease_id for held in arbiter.runtime.snapshot().leases] == [lease.lease_id]
        other.call.cancel()
