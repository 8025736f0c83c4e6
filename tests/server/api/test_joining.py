"""Streams that take over from others, break, or leave their lease behind."""

from typing import Any

import grpc

from fakes.polling import async_until
from gpuarbiter.v1 import admin_pb2, lease_pb2
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from support.messages import acquire, in_seconds, release
from support.refusals import refusal
from support.server import InProcess, rest_of, serving


def kinds(answers: list[pb.AcquireResponse]) -> list[str | None]:
    return [answer.WhichOneof("event") for answer in answers]


# -- joining --


async def test_a_second_stream_takes_the_lease_over():
    async with serving() as arbiter:
        first, lease = await arbiter.granted(acquire("r"))
        second, again = await arbiter.granted(acquire("r"))
        assert (again.lease_id, again.fencing_token) == (lease.lease_id, lease.fencing_token)
        answer = await refusal(first.read())
        assert (answer.code, answer.reason) == (grpc.StatusCode.ABORTED, "SUPERSEDED")
        await arbiter.stub.Release(release(lease))
        assert kinds(await rest_of(second)) == ["ended"]
        late = arbiter.stub.Acquire(acquire("r"))
        (ended,) = await rest_of(late)
        assert ended.ended.reason == lease_pb2.END_REASON_RELEASED


async def test_a_second_stream_takes_the_place_in_the_queue_over():
    async with serving() as arbiter:
        _, lease = await arbiter.granted(acquire(max_hold=0))
        first, _ = await arbiter.queued(acquire("r", max_wait=60))
        second, told = await arbiter.queued(acquire("r", max_wait=60))
        assert (told.position, told.queue_length) == (1, 1)
        assert (await refusal(first.read())).reason == "SUPERSEDED"
        await arbiter.stub.Release(release(lease))
        assert (await second.read()).granted.lease.request_id == "r"


async def test_a_join_with_other_wishes_is_a_conflict_and_harms_nothing():
    async with serving(gpus=2) as arbiter:
        call, lease = await arbiter.granted(acquire("r", gpu={"count": 1}))
        answer = await refusal(arbiter.stub.Acquire(acquire("r", task_type="TTS", gpu={"count": 2})).read())
        assert (answer.code, answer.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_CONFLICT")
        assert answer.metadata == {"fields": "task_type,gpu"}
        await arbiter.stub.Release(release(lease))
        assert kinds(await rest_of(call)) == ["ended"]


async def test_the_same_request_id_of_two_clients_never_meets():
    async with serving(gpus=2) as arbiter:
        _, one = await arbiter.granted(acquire("r", client="a"))
        _, other = await arbiter.granted(acquire("r", client="b"))
        assert one.lease_id != other.lease_id


async def test_after_an_error_a_request_id_starts_anew():
    async with serving() as arbiter:
        _, lease = await arbiter.granted(acquire())
        answer = await refusal(arbiter.stub.Acquire(acquire("r", max_wait=0)).read())
        assert answer.reason == "WAIT_TIMEOUT"
        await arbiter.stub.Release(release(lease))
        _, lease = await arbiter.granted(acquire("r", max_wait=0))
        assert lease.request_id == "r"


# -- broken streams --


async def broken(arbiter: InProcess, call: Any) -> None:
    """The client's end of the stream is gone, and the arbiter knows."""
    call.cancel()
    await arbiter.at_rest()


async def test_a_lease_with_a_request_id_waits_to_be_joined():
    async with serving("cooldown=0s") as arbiter:
        call, lease = await arbiter.granted(acquire("r", max_hold=0))
        await broken(arbiter, call)
        (shown,) = (await arbiter.snapshot()).leases
        assert shown.state == lease_pb2.LEASE_STATE_DETACHED
        call, again = await arbiter.granted(acquire("r", max_hold=0))
        assert again.lease_id == lease.lease_id
        await arbiter.advance(60.0)
        assert len((await arbiter.snapshot()).leases) == 1, "its time does not run while a stream carries it"
        await broken(arbiter, call)
        await arbiter.advance(5.0)
        assert not (await arbiter.snapshot()).leases
        ended = (await arbiter.events())[-1]
        assert ended.type == admin_pb2.EVENT_TYPE_ENDED
        late = arbiter.stub.Acquire(acquire("r", max_hold=0))
        assert (await late.read()).ended.reason == lease_pb2.END_REASON_DISCONNECTED


async def test_a_lease_without_a_request_id_goes_with_its_stream():
    async with serving("cooldown=0s") as arbiter:
        call, _ = await arbiter.granted(acquire())
        await broken(arbiter, call)
        assert not (await arbiter.snapshot()).leases


async def test_a_place_in_the_queue_outlives_its_stream_only_with_a_request_id():
    async with serving() as arbiter:
        await arbiter.granted(acquire(max_hold=0))
        unnamed, _ = await arbiter.queued(acquire(max_wait=60))
        named, _ = await arbiter.queued(acquire("r", max_wait=60))
        unnamed.cancel()
        named.cancel()
        await async_until(lambda: arbiter.runtime.snapshot().queue_length == 1)
        await arbiter.advance(5.0)
        assert (await arbiter.snapshot()).queue_length == 0


async def test_the_callers_deadline_bounds_the_lease():
    async with serving("cooldown=0s") as arbiter:
        call = arbiter.stub.Acquire(acquire(), timeout=0.05)
        assert (await call.read()).HasField("granted")
        assert (await refusal(call.read())).code is grpc.StatusCode.DEADLINE_EXCEEDED
        await arbiter.at_rest()
        assert not (await arbiter.snapshot()).leases


# -- detached --


async def test_a_detached_lease_outlives_its_stream_and_lives_by_its_ttl():
    async with serving("cooldown=0s") as arbiter:
        answers = await rest_of(arbiter.stub.Acquire(acquire("r", detached=True, ttl=30, max_hold=0)))
        assert kinds(answers) == ["granted"]
        lease = answers[0].granted.lease
        assert lease.state == lease_pb2.LEASE_STATE_DETACHED
        await arbiter.advance(20.0)
        renewed = await arbiter.stub.Renew(pb.RenewRequest(lease_id=lease.lease_id))
        assert in_seconds(renewed.ttl_remaining) == 30
        await arbiter.advance(20.0)
        assert len((await arbiter.snapshot()).leases) == 1
        await arbiter.advance(10.0)
        assert not (await arbiter.snapshot()).leases
        answer = await refusal(arbiter.stub.Renew(pb.RenewRequest(lease_id=lease.lease_id)))
        assert (answer.reason, answer.metadata) == ("LEASE_ENDED", {"end_reason": "TTL_EXPIRED"})


async def test_a_detached_request_can_be_asked_for_again():
    async with serving() as arbiter:
        request = acquire("r", detached=True, ttl=30)
        (first,) = await rest_of(arbiter.stub.Acquire(request))
        (again,) = await rest_of(arbiter.stub.Acquire(request))
        assert again.granted.lease.lease_id == first.granted.lease.lease_id
