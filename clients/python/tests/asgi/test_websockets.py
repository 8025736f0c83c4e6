"""WebSockets under leases: one for as long as each is open."""

import asyncio
from typing import Any

from fakes.asgi_server import WEBSOCKET, Exchange
from fakes.polling import async_until
from fakes.scripted_arbiter import Call, ScriptedArbiter
from gpuarbiter import AsyncArbiter, current_lease
from gpuarbiter.asgi import GpuLeaseMiddleware, GpuRoute

DENIABLE = {"websocket.http.response": {}}


def leased(app: Any, arbiter: AsyncArbiter, **options: Any):
    return GpuLeaseMiddleware(app, [GpuRoute("LLM", "/work", websocket=True)], arbiter=arbiter, **options)


async def echo(_scope: Any, receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "websocket.connect"
    assert current_lease().task_type == "LLM"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def never(_scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError("the application is not to be called")


def declined(call: Call):
    yield call.declined("SKIP", detail="ß" * 100)


async def test_a_lease_for_as_long_as_it_is_open(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    exchange = Exchange(leased(echo, arbiter), WEBSOCKET)
    exchange.says("websocket.receive", text="hello")
    assert (await exchange.heard("websocket.send"))["text"] == "hello"
    assert scripted.seen["Release"] == []
    exchange.hangs_up()
    await exchange.over()
    assert len(scripted.releases(1)) == 1


async def test_others_are_passed_through(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "websocket.close"})

    middleware = GpuLeaseMiddleware(app, [GpuRoute("LLM", "/work")], arbiter=arbiter)
    await (await Exchange(middleware, WEBSOCKET).over()).heard("websocket.close")
    assert scripted.seen["Acquire"] == []


async def test_a_close_by_the_application_gives_the_lease_back(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1000})
        assert len(scripted.releases(1)) == 1

    await Exchange(leased(app, arbiter), WEBSOCKET).over()


async def test_who_gets_no_gpu_gets_503_where_the_server_can_say_so(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    scripted.scripts.append(declined)
    exchange = await Exchange(leased(never, arbiter), WEBSOCKET, extensions=DENIABLE).over()
    assert [each["type"] for each in exchange.sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert (exchange.status, exchange.headers["retry-after"]) == (503, "1")
    assert exchange.problem["reason"] == "GPU_BUSY"


async def test_and_otherwise_a_close_that_says_to_try_again(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    scripted.scripts += [declined, declined]
    (close,) = (await Exchange(leased(never, arbiter), WEBSOCKET).over()).sent
    assert (close["type"], close["code"]) == ("websocket.close", 1013)
    assert close["reason"].startswith("GPU_BUSY: ßß")
    assert len(close["reason"].encode()) <= 123
    (close,) = (await Exchange(leased(never, arbiter, detail=False), WEBSOCKET, extensions=None).over()).sent
    assert close["reason"] == "GPU_BUSY"


async def test_who_goes_while_it_waits_is_taken_out_of_the_queue(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    def queued(call: Call):
        yield call.queued()
        call.wait("never")

    scripted.scripts.append(queued)
    exchange = Exchange(leased(never, arbiter), WEBSOCKET)
    await async_until(lambda: scripted.seen["Acquire"])
    exchange.hangs_up()
    await exchange.over()
    assert exchange.sent == []
    assert scripted.seen["Release"][0].request_id


async def test_what_is_sent_to_nobody_ends_the_application(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async def talker(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await asyncio.sleep(0)
            await send({"type": "websocket.send", "text": "and"})

    exchange = Exchange(leased(talker, arbiter), WEBSOCKET)
    await exchange.heard("websocket.send")
    exchange.hangs_up()
    await exchange.over()
    assert len(scripted.releases(1)) == 1


async def test_a_lost_lease_closes_it(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    def revoked(call: Call):
        yield call.granted()
        call.wait("revoke")
        yield call.ended("REVOKED")

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if accepts:
            await send({"type": "websocket.accept"})
        scripted.open("revoke")
        await asyncio.Event().wait()

    scripted.scripts += [revoked, revoked]
    for accepts in (True, False):
        exchange = await Exchange(leased(app, arbiter), WEBSOCKET, extensions=DENIABLE).over()
        if accepts:
            assert exchange.sent[-1]["code"] == 1013
            assert exchange.sent[-1]["reason"].startswith("LEASE_LOST: ")
        else:
            assert exchange.status == 503
