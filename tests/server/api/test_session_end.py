"""How a session ends, and what becomes of what it asked for."""

import asyncio

import grpc
import pytest

from fakes.polling import async_until
from gpuarbiter.v1 import error_pb2
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from support.messages import acquire, holder, release
from support.server import rest_of, serving

from .sessions import kind, opened, session


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
