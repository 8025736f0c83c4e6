"""HTTP requests under leases: granted, refused, given up, and lost."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import grpc
import pytest

from fakes.asgi_server import Exchange, respond
from fakes.polling import async_until
from fakes.scripted_arbiter import Call, ScriptedArbiter, refuse, seconds
from gpuarbiter import ArbiterError, AsyncArbiter, AsyncLease, LeaseLost, WorkReport, current_lease
from gpuarbiter._asgi.interruption import Interruption
from gpuarbiter.asgi import GpuLeaseMiddleware, GpuRoute
from gpuarbiter.v1 import lease_pb2

OK, FAILED = lease_pb2.WORK_RESULT_OK, lease_pb2.WORK_RESULT_FAILED
CANCELLED = lease_pb2.WORK_RESULT_CANCELLED


def leased(app: Any, arbiter: AsyncArbiter, *, detail: bool = True, buffer: Any = "1MiB", **route: Any):
    return GpuLeaseMiddleware(app, [GpuRoute("ASR", "/work", **route)], arbiter=arbiter, detail=detail, buffer=buffer)


async def never(_scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError("the application is not to be called")


def result(scripted: ScriptedArbiter) -> int:
    (release,) = scripted.releases(1)
    number: int = release.report.result
    return number


def queue_until_the_end(call: Call):
    yield call.queued()
    call.wait("never")


def held_until_it_is_revoked(call: Call):
    yield call.granted()
    call.wait("revoke")
    yield call.ended("REVOKED")


def refusing(code: str, reason: str, **details: Any):
    def script(call: Call):
        yield from ()
        refuse(call.context, grpc.StatusCode[code], reason, **details)

    return script


async def test_a_request_runs_under_a_lease_that_it_can_see(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        lease = current_lease()
        assert scope["state"]["gpu_lease"] is lease
        assert scope["state"]["given"] == "by the server"
        assert isinstance(lease, AsyncLease)
        assert not lease.released
        message = await receive()
        await respond(send, message["body"])

    exchange = Exchange(leased(app, arbiter, memory="6GiB"), body=False, state={"given": "by the server"})
    exchange.says("http.request", body=b"hello", more_body=False)
    await exchange.over()
    assert (exchange.status, exchange.body) == (200, b"hello")
    assert scripted.seen["Acquire"][0].gpu.memory_bytes == 6 * 2**30
    assert result(scripted) == OK
    assert current_lease(None) is None


async def test_other_requests_are_none_of_its_business(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert "gpu_lease" not in scope["state"]
        assert current_lease(None) is None
        assert receive == exchange.inbound.get
        await respond(send)

    exchange = Exchange(leased(app, arbiter), path="/health")
    await exchange.over()
    assert exchange.status == 200
    assert scripted.seen["Acquire"] == []


async def test_the_first_route_that_matches_decides(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await respond(send)

    routes = [GpuRoute("NMT", "/translate"), GpuRoute("LLM", "/v1/*"), GpuRoute("OTHER")]
    middleware = GpuLeaseMiddleware(app, routes, arbiter=arbiter)
    for path in ("/v1/chat", "/translate", "/x"):
        await Exchange(middleware, path=path).over()
    assert [each.task_type for each in scripted.seen["Acquire"]] == ["LLM", "NMT", "OTHER"]


async def test_the_lease_is_held_to_the_last_piece_and_not_through_what_follows(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter
):
    pieces, background = asyncio.Event(), asyncio.Event()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await respond(send, b"a", more=True)
        await pieces.wait()
        assert scripted.seen["Release"] == []
        await send({"type": "http.response.body", "body": b"b"})
        await background.wait()

    exchange = Exchange(leased(app, arbiter))
    await exchange.heard("http.response.body")
    pieces.set()
    await async_until(lambda: scripted.seen["Release"])
    assert not exchange.task.done()
    background.set()
    await exchange.over()
    assert exchange.body == b"ab"
    assert result(scripted) == OK


async def test_trailers_are_a_piece_too(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"a"})
        await send({"type": "http.response.trailers", "headers": [], "more_trailers": True})
        assert scripted.seen["Release"] == []
        await send({"type": "http.response.trailers", "headers": []})
        assert len(scripted.releases(1)) == 1

    await Exchange(leased(app, arbiter)).over()


@pytest.mark.parametrize(
    ("script", "reason", "detail", "retry_after"),
    [
        (
            lambda call: iter([call.declined("SKIP", detail="in use", retry_after=seconds(2.1))]),
            "GPU_BUSY",
            "in use",
            "3",
        ),
        (lambda call: iter([call.declined("FALLBACK_CPU", "MEMORY_RECOVERY")]), "MEMORY_RECOVERY", "", "1"),
        (refusing("DEADLINE_EXCEEDED", "WAIT_TIMEOUT", message="waited 3 s"), "WAIT_TIMEOUT", "waited 3 s", "1"),
        (refusing("RESOURCE_EXHAUSTED", "QUEUE_FULL", message="full", retry_after=0.2), "QUEUE_FULL", "full", "1"),
        (
            refusing("RESOURCE_EXHAUSTED", "CLIENT_LIMIT", message="8 wait", retry_after=7),
            "CLIENT_LIMIT",
            "8 wait",
            "7",
        ),
        (refusing("UNAVAILABLE", "GPU_UNAVAILABLE", message="lost"), "GPU_UNAVAILABLE", "lost", "1"),
        (refusing("UNAVAILABLE", "SHUTDOWN", message="going", retry_after=5), "SHUTDOWN", "going", "5"),
    ],
)
async def test_who_gets_no_gpu_gets_503_and_when_to_come_back(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, script: Any, reason: str, detail: str, retry_after: str
):
    scripted.scripts.append(script)
    # No time to wait, so that what may pass is not asked again.
    exchange = await Exchange(leased(never, arbiter, max_wait=0)).over()
    assert exchange.status == 503
    assert exchange.headers["retry-after"] == retry_after
    assert exchange.headers["cache-control"] == "no-store"
    problem = exchange.problem
    assert detail in problem.pop("detail")
    assert problem == {"type": "about:blank", "title": "Service Unavailable", "status": 503, "reason": reason}


async def test_what_is_in_the_way_can_be_kept_back(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    scripted.scripts.append(lambda call: iter([call.declined("SKIP", detail="held by alice")]))
    exchange = await Exchange(leased(never, arbiter, detail=False)).over()
    assert "detail" not in exchange.problem
    assert exchange.problem["reason"] == "GPU_BUSY"


async def test_without_an_arbiter_503_that_names_no_addresses():
    async with AsyncArbiter("127.0.0.1:1") as nobody:
        exchange = await Exchange(leased(never, nobody)).over()
    assert (exchange.status, exchange.headers["retry-after"]) == (503, "1")
    assert exchange.problem["reason"] == "UNAVAILABLE"
    assert "127.0.0.1" not in exchange.problem["detail"]


async def test_without_an_arbiter_it_can_go_on(caplog: pytest.LogCaptureFixture):
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        assert scope["state"]["gpu_lease"].unmanaged
        await respond(send)

    async with AsyncArbiter("127.0.0.1:1", on_unavailable="proceed") as nobody:
        assert (await Exchange(leased(app, nobody)).over()).status == 200
    assert "WITHOUT leases" in caplog.text


@pytest.mark.parametrize("reason", ["INVALID_REQUEST", "UNKNOWN_GPU", "INFEASIBLE", "NOT_PERMITTED", "UNAUTHENTICATED"])
async def test_what_is_wrong_with_the_service_is_raised_in_it(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, reason: str
):
    scripted.scripts.append(refusing("FAILED_PRECONDITION", reason))
    exchange = Exchange(leased(never, arbiter))
    with pytest.raises(ArbiterError) as caught:
        await exchange.over()
    assert caught.value.reason == reason
    assert exchange.sent == []


async def test_a_client_that_goes_while_it_waits_is_taken_out_of_the_queue(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "gpuarbiter")
    scripted.scripts.append(queue_until_the_end)
    exchange = Exchange(leased(never, arbiter))
    await async_until(lambda: scripted.seen["Acquire"])
    exchange.hangs_up()
    await exchange.over()
    assert exchange.sent == []
    (withdrawn,) = scripted.seen["Release"]
    assert withdrawn.request_id == scripted.seen["Acquire"][0].request_id
    assert scripted.calls[0].closed.wait(10)
    assert "ASR /work: the client went while it waited for a GPU" in caplog.text


async def test_a_server_that_cancels_a_waiting_request_takes_it_back_too(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter
):
    scripted.scripts.append(queue_until_the_end)
    exchange = Exchange(leased(never, arbiter))
    await async_until(lambda: scripted.seen["Acquire"])
    exchange.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exchange.over()
    assert scripted.seen["Release"][0].request_id


async def test_a_client_that_is_gone_already_is_not_served(scripted: ScriptedArbiter):
    # Gone in the very moment of the grant, so that the cancel comes too late.
    class Late(AsyncArbiter):
        async def acquire(self, task_type: str, **options: Any) -> Any:
            lease = await super().acquire(task_type, **options)
            exchange.hangs_up()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return lease

    async with Late(scripted.address) as late:
        exchange = Exchange(leased(never, late))
        await exchange.over()
    assert result(scripted) == CANCELLED


async def test_the_body_that_came_while_it_waited_reaches_the_application_in_order(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter
):
    def granted_later(call: Call):
        yield call.queued()
        call.wait("grant")
        yield call.granted()
        yield from call.hold()

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        got = b""
        while True:
            message = await receive()
            got += message["body"]
            if not message["more_body"]:
                break
        await respond(send, got)

    scripted.scripts.append(granted_later)
    exchange = Exchange(leased(app, arbiter, buffer=1200), body=False)
    for piece in (b"a", b"b" * 300, b"c", b"d"):
        exchange.says("http.request", body=piece, more_body=True)
    # Two pieces are 1,325 bytes with what they cost beside; the rest is left where it is.
    await async_until(lambda: exchange.inbound.qsize() == 2)
    scripted.open("grant")
    exchange.says("http.request", body=b"e", more_body=False)
    await exchange.over()
    assert exchange.body == b"a" + b"b" * 300 + b"cde"


async def test_what_the_server_raises_at_a_read_reaches_the_application(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter
):
    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        await receive()

    async def broken() -> Any:
        raise OSError("no more of this")

    async def send(_message: Any) -> None: ...

    scope = {"type": "http", "method": "POST", "path": "/work", "headers": []}
    with pytest.raises(OSError, match="no more of this"):
        await leased(app, arbiter)(scope, broken, send)
    assert result(scripted) == FAILED


async def test_a_stream_to_a_client_who_goes_ends_at_its_next_piece(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await respond(send, b"a", more=True)
        while True:
            await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": b"b", "more_body": True})

    exchange = Exchange(leased(app, arbiter))
    await exchange.heard("http.response.body")
    exchange.hangs_up()
    await exchange.over()
    assert result(scripted) == CANCELLED


async def test_who_reads_learns_that_the_client_is_gone_as_often_as_it_asks(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter
):
    async def app(_scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        exchange.hangs_up()
        assert [(await receive())["type"] for _ in range(2)] == ["http.disconnect"] * 2
        await respond(send)  # to nobody

    exchange = Exchange(leased(app, arbiter))
    await exchange.over()
    assert len(scripted.releases(1)) == 1


async def test_the_end_of_a_served_connection_is_no_hang_up(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    ended = asyncio.Event()

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await respond(send)
        assert (await receive())["type"] == "http.disconnect"
        ended.set()

    exchange = Exchange(leased(app, arbiter, cancel_on_disconnect=True))
    await exchange.heard("http.response.body")
    exchange.hangs_up()
    await exchange.over()
    assert ended.is_set()
    assert result(scripted) == OK


async def test_a_handler_can_be_cancelled_when_its_client_goes(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    cancelled = asyncio.Event()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await respond(send, b"a", more=True)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    exchange = Exchange(leased(app, arbiter, cancel_on_disconnect=True))
    await exchange.heard("http.response.body")
    exchange.hangs_up()
    await exchange.over()
    assert cancelled.is_set()
    assert exchange.task.cancelling() == 0
    assert result(scripted) == CANCELLED


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (200, None, OK),
        (404, None, OK),
        (500, None, FAILED),
        (500, ZeroDivisionError(), FAILED),
        (500, type("OutOfMemoryError", (RuntimeError,), {})(), lease_pb2.WORK_RESULT_OUT_OF_MEMORY),
        (0, ZeroDivisionError(), FAILED),
    ],
)
async def test_the_arbiter_is_told_how_it_went(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, status: int, error: Exception | None, expected: int
):
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        if status:
            await respond(send, status=status)
        if error is not None:
            raise error

    exchange = Exchange(leased(app, arbiter))
    if error is None:
        await exchange.over()
    else:
        with pytest.raises(type(error)):
            await exchange.over()
    assert result(scripted) == expected


async def test_what_the_application_reports_itself_counts(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        scope["state"]["gpu_lease"].report(WorkReport(result="FAILED", work_items=3, duration=timedelta(seconds=1)))
        await respond(send)

    await Exchange(leased(app, arbiter)).over()
    (release,) = scripted.releases(1)
    assert (release.report.result, release.report.work_items) == (FAILED, 3)


async def test_a_lease_that_is_lost_before_the_answer_is_503(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    lost: list[AsyncLease] = []
    cancelled = asyncio.Event()

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        scripted.open("revoke")
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    scripted.scripts.append(held_until_it_is_revoked)
    exchange = await Exchange(leased(app, arbiter, on_lost=lost.append)).over()
    assert cancelled.is_set()
    assert (exchange.status, exchange.headers["retry-after"]) == (503, "1")
    assert exchange.problem["reason"] == "LEASE_LOST"
    assert "REVOKED" in exchange.problem["detail"]
    await async_until(lambda: lost)
    assert lost[0].lost_reason == "REVOKED"
    assert scripted.seen["Release"] == []


async def test_half_an_answer_does_not_look_like_a_whole_one(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await respond(send, b"a", more=True)
        scripted.open("revoke")
        await asyncio.Event().wait()

    scripted.scripts.append(held_until_it_is_revoked)
    exchange = Exchange(leased(app, arbiter))
    with pytest.raises(LeaseLost, match="REVOKED"):
        await exchange.over()
    assert exchange.body == b"a"


async def test_an_application_can_look_after_its_lease_itself(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        scripted.open("revoke")
        await async_until(lambda: current_lease().lost)
        await respond(send)

    scripted.scripts.append(held_until_it_is_revoked)
    assert (await Exchange(leased(app, arbiter, cancel_when_lost=False)).over()).status == 200


async def test_on_the_cpu_where_the_route_says_so(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        assert scope["state"]["gpu_lease"] is None
        assert current_lease(None) is None
        await respond(send, b"cpu")

    scripted.scripts += [lambda call: iter([call.declined("FALLBACK_CPU")]), lambda call: iter([call.declined("SKIP")])]
    middleware = leased(app, arbiter, cpu_fallback=True)
    assert (await Exchange(middleware).over()).body == b"cpu"
    (told,) = scripted.seen["ReportWork"]
    assert (told.task_type, told.report.device) == ("ASR", lease_pb2.WORK_DEVICE_CPU)
    assert (await Exchange(middleware).over()).status == 503


async def test_what_fails_on_the_cpu_fails(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise ZeroDivisionError

    scripted.scripts.append(lambda call: iter([call.declined("FALLBACK_CPU")]))
    with pytest.raises(ZeroDivisionError):
        await Exchange(leased(app, arbiter, cpu_fallback=True)).over()
    assert scripted.seen["ReportWork"][0].report.result == FAILED


async def test_a_stream_from_the_cpu_ends_with_its_client_too(scripted: ScriptedArbiter, arbiter: AsyncArbiter):
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await respond(send, more=True)
        while True:
            await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": b"b", "more_body": True})

    scripted.scripts.append(lambda call: iter([call.declined("FALLBACK_CPU")]))
    exchange = Exchange(leased(app, arbiter, cpu_fallback=True))
    await exchange.heard("http.response.body")
    exchange.hangs_up()
    await exchange.over()


@pytest.mark.parametrize(
    ("raised", "stays"),
    [
        (lambda _gone: RuntimeError("as frameworks do"), False),
        (lambda gone: ExceptionGroup("of a task group", [gone]), False),
        (lambda gone: ExceptionGroup("of a task group", [gone, ValueError("a bug")]), True),
    ],
)
async def test_only_what_came_of_the_client_s_going_is_kept_back(
    scripted: ScriptedArbiter, arbiter: AsyncArbiter, raised: Callable[[OSError], Exception], *, stays: bool
):
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await respond(send, more=True)
        exchange.hangs_up()
        try:
            while True:
                await asyncio.sleep(0)
                await send({"type": "http.response.body", "body": b"b", "more_body": True})
        except OSError as gone:
            raise raised(gone)  # noqa: B904 -- its context is what is looked at

    exchange = Exchange(leased(app, arbiter))
    with pytest.raises(ExceptionGroup) if stays else contextlib.nullcontext():
        await exchange.over()
    assert result(scripted) == (FAILED if stays else CANCELLED)


async def test_a_second_reason_to_interrupt_is_one_too_many():
    interruption = Interruption()
    interruption.interrupt("gone")  # too early
    with interruption:
        asyncio.get_running_loop().call_soon(interruption.interrupt, "lost")
        asyncio.get_running_loop().call_soon(interruption.interrupt, "gone")
        await asyncio.Event().wait()
    interruption.interrupt("gone")  # too late
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert interruption.cause == "lost"
