"""Both ends of a session, as tests need them: a client over gRPC, and a stream whose client does not read."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import grpc

from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from support.messages import acquire, holder
from support.server import InProcess, serving


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


class SilentContext:
    """A stream whose client sends what the test puts in, and reads only as much as it is told to."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[Any] = asyncio.Queue()
        self.written: list[pb.SessionResponse] = []
        self.room = asyncio.Semaphore(0)

    def invocation_metadata(self) -> tuple[()]:
        """Nothing."""
        return ()

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
