"""Whole conversations, cancelled after each turn of the loop from their first to their last: nothing of them may stay.

The handlers alone, where every turn is the same each time, at each of them; over gRPC, where it is not, at some that
are close together (with GPU_ARBITER_SOAK at each), and by the client library, whose caller may be cancelled as well.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from fakes.polling import async_until
from gpuarbiter import AsyncArbiter, AsyncLease
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import lease_pb2
from support import soak
from support.messages import acquire, holder, release
from support.server import InProcess, serving

TURNS_PER_MESSAGE = 2
# Over gRPC a conversation takes from thirty turns to some hundreds, as the machine has it.
STRIDE = 1 if soak.wanted() else 3
# A conversation that was over so many times in a row, before it could be cancelled, has been cancelled everywhere.
OVER_IN_A_ROW = 3
NEVER_OVER = 100_000


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def nothing_stays(arbiter: InProcess, request_id: str) -> None:
    """Neither ticket nor lease nor call nor clock; of a named request only once its grace is over."""
    if request_id:
        await arbiter.at_rest()
        await arbiter.advance(5.0)

    def empty() -> bool:
        view = arbiter.runtime.snapshot()
        return not view.leases and not view.queue and not arbiter.runtime._calls

    await async_until(empty, "for the arbiter to forget")
    state = arbiter.arbiter._state
    assert not state.calls
    assert not state.waiting
    # What is over may be remembered, so that it can be answered for; what is not over must not be.
    assert not state.requests._by_name


async def cancelled_after(count: int, conversation: "asyncio.Task[Any]") -> bool:
    """Cancels it after so many turns; whether it was over by then."""
    for _ in range(count):
        if conversation.done():
            break
        await asyncio.sleep(0)
    over = conversation.done()
    conversation.cancel()
    (outcome,) = await asyncio.gather(conversation, return_exceptions=True)
    if isinstance(outcome, Exception):
        raise outcome
    return over


async def everywhere(
    attempt: Callable[[int, str], Awaitable[bool]], stride: int = 1, *, name: Callable[[int], str] = lambda _: ""
) -> int:
    """Makes attempts, each cancelled later than the one before, until they are over before; how many were cut short."""
    row = 0
    for number in range(NEVER_OVER):
        row = row + 1 if await attempt(number * stride, name(number)) else 0
        if row == OVER_IN_A_ROW:
            return number + 1 - row
    raise AssertionError("it is never over")


# -- the handlers --


class Line:
    """Both directions of a stream: what the client says, and what was written to it; each message takes some turns."""

    def __init__(self, *said: pb.SessionRequest) -> None:
        self.written: list[Any] = []
        self._said = list(said)

    def invocation_metadata(self) -> tuple[()]:
        """Nothing."""
        return ()

    async def read(self) -> Any:
        await turns(TURNS_PER_MESSAGE)
        return self._said.pop(0) if self._said else grpc.aio.EOF

    async def write(self, message: Any) -> None:
        await turns(TURNS_PER_MESSAGE)
        self.written.append(message)

    def granted(self) -> bool:
        """Whether a lease was written."""
        return any(each.HasField("granted") for each in self.written)

    @property
    def lease(self) -> lease_pb2.Lease:
        return next(each.granted.lease for each in self.written if each.HasField("granted"))


NAMES = pytest.mark.parametrize("name", [lambda _: "", lambda number: f"r-{number}"], ids=["unnamed", "named"])


@NAMES
async def test_an_acquire_from_its_queue_to_its_end_leaves_nothing_wherever_it_is_cancelled(name: Callable[[int], str]):
    async with serving("cooldown=0s") as arbiter:
        reached: set[str] = set()

        async def attempt(count: int, request_id: str) -> bool:
            first, line = Line(), Line()
            before = asyncio.create_task(arbiter.service.acquire(acquire(max_hold=0), first))
            await async_until(first.granted)
            acquiring = asyncio.create_task(arbiter.service.acquire(acquire(request_id, max_wait=60), line))
            others = asyncio.create_task(lets_go(first, line))
            over = await cancelled_after(count, acquiring)
            others.cancel()
            before.cancel()
            await asyncio.gather(before, others, return_exceptions=True)
            await nothing_stays(arbiter, request_id)
            reached.add(line.written[-1].WhichOneof("event") if line.written else "nothing")
            return over

        async def lets_go(first: Line, line: Line) -> None:
            """The one before is released once the other waits, and the other one once it is granted."""
            while not line.written:
                await turns(1)
            await arbiter.service.release(release(first.lease), Line())
            while not line.granted():
                await turns(1)
            await arbiter.service.release(release(line.lease), Line())

        assert await everywhere(attempt, name=name) > 10
        assert reached == {"nothing", "queued", "granted", "ended"}


@NAMES
@pytest.mark.parametrize("end", ["cancelled", "hangs up"])
async def test_a_session_leaves_nothing_wherever_it_ends(name: Callable[[int], str], end: str):
    async with serving("cooldown=0s") as arbiter:
        reached: set[str] = set()

        async def attempt(count: int, request_id: str) -> bool:
            said = [
                pb.SessionRequest(call_id=1, open={"holder": holder()}),
                pb.SessionRequest(call_id=2, acquire=acquire(max_hold=0)),
                pb.SessionRequest(call_id=3, acquire=acquire(request_id, max_wait=60)),
                pb.SessionRequest(call_id=4, cancel={"acquire_call_id": 2}),
                pb.SessionRequest(call_id=5, acquire=acquire(max_wait=60)),
                pb.SessionRequest(call_id=6, cancel={"acquire_call_id": 5}),
                pb.SessionRequest(call_id=7, cancel={"acquire_call_id": 3}),
            ]
            hangs_up = end == "hangs up"
            if hangs_up and not count:
                return False  # A session needs its opening.
            line = Line(*(said[:count] if hangs_up else said))
            session = asyncio.create_task(arbiter.service.session(None, line))
            over = await cancelled_after(NEVER_OVER if hangs_up else count, session)
            await nothing_stays(arbiter, request_id)
            reached.update(each.acquire.WhichOneof("event") or each.WhichOneof("answer") for each in line.written)
            return over and (not hangs_up or count >= len(said))

        assert await everywhere(attempt, name=name) > 5
        assert reached >= {"opened", "queued", "granted", "ended", "release"}


@pytest.mark.parametrize("method", ["release", "renew", "resize", "check_fence", "report_work"])
async def test_a_unary_call_leaves_nothing_wherever_it_is_cancelled(method: str):
    async with serving("cooldown=0s") as arbiter:

        async def attempt(count: int, _: str) -> bool:
            line = Line()
            acquiring = asyncio.create_task(arbiter.service.acquire(acquire(max_hold=0), line))
            await async_until(line.granted)
            lease = line.lease
            mine = {"lease_id": lease.lease_id, "fencing_token": lease.fencing_token}
            request = {
                "release": pb.ReleaseRequest(**mine),
                "renew": pb.RenewRequest(**mine),
                "resize": pb.ResizeRequest(**mine, memory_bytes=1),
                "check_fence": pb.CheckFenceRequest(gpu="gpu:0", fencing_token=lease.fencing_token),
                "report_work": pb.ReportWorkRequest(task_type="ASR", holder=holder(), report={}),
            }[method]
            calling = asyncio.create_task(getattr(arbiter.service, method)(request, Line()))
            over = await cancelled_after(count, calling)
            acquiring.cancel()
            await asyncio.gather(acquiring, return_exceptions=True)
            await nothing_stays(arbiter, "")
            return over

        assert await everywhere(attempt) > 1


# -- over gRPC --


async def talk(arbiter: InProcess, request_id: str, mine: list[Any]) -> None:
    """Asks behind another, waits, holds, gives back, and sees the end; the calls go to `mine`."""
    before = arbiter.stub.Acquire(acquire(client="before", max_hold=0))
    mine.append(before)
    first = (await before.read()).granted.lease
    call = arbiter.stub.Acquire(acquire(request_id, max_wait=60))
    mine.append(call)
    answer = await call.read()
    await arbiter.stub.Release(release(first))
    while not answer.HasField("granted"):
        answer = await call.read()
    await arbiter.stub.Release(release(answer.granted.lease))
    while not answer.HasField("ended"):
        answer = await call.read()


async def talk_in_a_session(arbiter: InProcess, request_id: str, mine: list[Any]) -> None:
    """The same over one stream."""
    call = arbiter.stub.Session()
    mine.append(call)
    await call.write(pb.SessionRequest(call_id=1, open={"holder": holder()}))
    await call.write(pb.SessionRequest(call_id=2, acquire=acquire(max_hold=0)))
    await call.write(pb.SessionRequest(call_id=3, acquire=acquire(request_id, max_wait=60)))
    await call.write(pb.SessionRequest(call_id=4, cancel={"acquire_call_id": 2}))
    while not ((answer := await call.read()).call_id == 3 and answer.acquire.HasField("granted")):
        pass
    await call.write(pb.SessionRequest(call_id=5, cancel={"acquire_call_id": 3}))
    while not ((answer := await call.read()).call_id == 3 and answer.acquire.HasField("ended")):
        pass


@NAMES
@pytest.mark.parametrize("conversation", [talk, talk_in_a_session], ids=["acquire", "session"])
async def test_a_conversation_over_grpc_leaves_nothing_wherever_its_client_is_cancelled(
    conversation: Callable[..., Any], name: Callable[[int], str], capsys: pytest.CaptureFixture[str]
):
    async with serving("cooldown=0s") as arbiter:

        async def attempt(count: int, request_id: str) -> bool:
            mine: list[Any] = []
            over = await cancelled_after(count, asyncio.create_task(conversation(arbiter, request_id, mine)))
            for call in mine:
                call.cancel()
            await nothing_stays(arbiter, request_id)
            return over

        places = await everywhere(attempt, STRIDE, name=name)
        with soak.figures(capsys):
            print(f"\n{conversation.__name__}: cancelled in {places} places")
        assert places > 3


async def test_a_lease_of_the_library_leaves_nothing_wherever_its_caller_is_cancelled(
    capsys: pytest.CaptureFixture[str],
):
    async with serving("cooldown=0s") as arbiter, AsyncArbiter(f"127.0.0.1:{arbiter.port}") as library:
        had: set[bool] = set()

        async def attempt(count: int, request_id: str) -> bool:
            before, first = await arbiter.granted(acquire(client="before", max_hold=0))
            mine: list[AsyncLease] = []

            async def use() -> None:
                async with library.lease("ASR", max_wait=60, request_id=request_id) as lease:
                    mine.append(lease)

            async def let_go() -> None:
                await async_until(lambda: arbiter.runtime.snapshot().queue or using.done())
                await arbiter.stub.Release(release(first))

            using = asyncio.create_task(use())
            letting_go = asyncio.create_task(let_go())
            over = await cancelled_after(count, using)
            await letting_go
            before.cancel()
            had.add(bool(mine))
            # At once, not only when its grace is over: who is cancelled takes its request back.
            await nothing_stays(arbiter, "")
            return over

        places = await everywhere(attempt, STRIDE, name=lambda number: f"library-{number}")
        with soak.figures(capsys):
            print(f"\nthe library: cancelled in {places} places")
        assert places > 3
        assert had == {False, True}
