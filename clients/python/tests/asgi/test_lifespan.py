"""The Arbiter that the middleware uses, from the start of a service to its end."""

import asyncio
from typing import Any

import pytest

from fakes.asgi_server import Exchange, respond
from fakes.scripted_arbiter import ScriptedArbiter
from gpuarbiter import AsyncArbiter, default_async_arbiter
from gpuarbiter.asgi import GpuLeaseMiddleware, GpuRoute

LIFESPAN = {"type": "lifespan"}
ROUTES = [GpuRoute("ASR", "/work")]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await respond(send)
        return
    assert (await receive())["type"] == "lifespan.startup"
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    await send({"type": "lifespan.shutdown.complete"})


async def live(middleware: GpuLeaseMiddleware, *, served: bool = True) -> None:
    service = Exchange(middleware, LIFESPAN, body=False)
    service.says("lifespan.startup")
    await service.heard("lifespan.startup.complete")
    if served:
        assert (await Exchange(middleware).over()).status == 200
    service.says("lifespan.shutdown")
    await service.heard("lifespan.shutdown.complete")
    await service.over()


async def test_one_that_it_made_is_closed(scripted: ScriptedArbiter):
    made: list[AsyncArbiter] = []

    def make() -> AsyncArbiter:
        made.append(AsyncArbiter(scripted.address))
        return made[-1]

    middleware = GpuLeaseMiddleware(app, ROUTES, arbiter=make)
    await live(middleware, served=False)
    assert made == []
    await live(middleware)
    await live(middleware)  # as tests do, which start a service more than once
    assert [each.closed for each in made] == [True, True]
    assert len(scripted.seen["Release"]) == 2


async def test_that_of_the_process_is_closed_and_another_one_comes(
    scripted: ScriptedArbiter, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GPU_ARBITER_ADDRESS", scripted.address)
    before = default_async_arbiter()
    await live(GpuLeaseMiddleware(app, ROUTES))
    assert before.closed
    assert not default_async_arbiter().closed
    await default_async_arbiter().close()


async def test_one_that_was_given_stays_open(scripted: ScriptedArbiter):
    async with AsyncArbiter(scripted.address) as mine:
        await live(GpuLeaseMiddleware(app, ROUTES, arbiter=mine))
        assert not mine.closed


async def test_an_application_without_lifespan_is_served_all_the_same(scripted: ScriptedArbiter):
    async def plain(scope: Any, _receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await respond(send)

    async with AsyncArbiter(scripted.address) as mine:
        middleware = GpuLeaseMiddleware(plain, ROUTES, arbiter=mine)
        service = Exchange(middleware, LIFESPAN, body=False)
        with pytest.raises(AssertionError):
            await service.over()
        assert (await Exchange(middleware).over()).status == 200


def test_each_event_loop_has_its_own(scripted: ScriptedArbiter):
    made: list[AsyncArbiter] = []

    def make() -> AsyncArbiter:
        made.append(AsyncArbiter(scripted.address))
        return made[-1]

    middleware = GpuLeaseMiddleware(app, ROUTES, arbiter=make)

    async def twice() -> None:
        middleware._arbiter()
        assert middleware._arbiter() is made[-1]

    for _ in range(2):
        with asyncio.Runner() as runner:
            runner.run(twice())
    assert len(made) == 2
