"""Clients of every kind, and none that stays: each asks for something under a new name, and half change their mind.

Names of clients, requests and tasks never come twice, so that whatever is kept by name grows and shows.
"""

import asyncio
import contextlib
import random
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from e2e.harness.client import Client, acquire_request
from gpuarbiter import ArbiterError, AsyncArbiter
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import lease_pb2
from support.messages import GIB, holder

AT_A_TIME = 24
# Sessions that fill what is remembered.
FILLING = 100
# A change of mind comes within so many seconds; a call takes about a millisecond.
SOON_SECONDS = 0.004
# Operations that a client of a kind cancels: of a session the reading and the writing.
CANCELS = Counter(
    {"changes_its_mind": 1, "comes_back": 1, "session": 2, "impatient": 2, "watches": 1, "hangs_up": 1, "library": 1}
)


class Churn:
    """Goes on for so many seconds at a time, and has everything back when it pauses."""

    def __init__(self, target: str, seed: int) -> None:
        self._target = target
        self._chance = random.Random(seed)
        self._client = Client(target)
        self._kinds: list[Callable[[], Awaitable[None]]] = [
            self._holds,
            self._changes_its_mind,
            self._comes_back,
            self._session,
            self._detached,
            self._impatient,
            self._mistaken,
            self._watches,
            self._hangs_up,
            self._library,
        ]
        self.done: Counter[str] = Counter()

    @property
    def cancelled(self) -> int:
        """Operations of calls that were given up while they were under way, at most."""
        return sum(CANCELS[kind] * count for kind, count in self.done.items())

    async def run(self, seconds: float) -> None:
        """Each kind at least once; then whoever comes."""
        end = asyncio.get_running_loop().time() + seconds
        await asyncio.gather(*(self._one(kind) for kind in self._kinds))

        async def one_after_another() -> None:
            while asyncio.get_running_loop().time() < end:
                await self._one(self._chance.choice(self._kinds))

        await asyncio.gather(*(one_after_another() for _ in range(AT_A_TIME)))

    async def fill(self, count: int) -> None:
        """So many leases, and so many requests that never held one, under names as long as the others'."""
        await asyncio.gather(*(self._many(count // FILLING, {"memory": GIB // 16}) for _ in range(FILLING)))
        in_the_way = await self._client.acquire(**self._request(shared=False, memory=0, count=2)).granted()
        await asyncio.gather(*(self._many(count // FILLING, {"max_wait": 0}) for _ in range(FILLING)))
        await self._client.release(in_the_way)

    async def _many(self, count: int, wishes: dict[str, Any]) -> None:
        """So many requests that are taken back at once, or over by themselves."""
        session = self._client.session()
        await session.write(pb.SessionRequest(call_id=1, open={"holder": holder("filling")}))
        await session.read()
        for number in range(count):
            call_id = 2 * number + 2
            request = self._request(request_id=uuid.uuid4().hex, shared=True, **wishes)
            await session.write(pb.SessionRequest(call_id=call_id, acquire=acquire_request(**request)))
            if "max_wait" not in wishes:
                await session.write(pb.SessionRequest(call_id=call_id + 1, cancel={"acquire_call_id": call_id}))
                call_id += 1
            while (await session.read()).call_id != call_id:
                pass
        session.cancel()

    async def close(self) -> None:
        await self._client.close()

    async def _one(self, kind: Callable[[], Awaitable[None]]) -> None:
        await kind()
        self.done[kind.__name__.strip("_")] += 1

    def _request(self, **fields: Any) -> dict[str, Any]:
        """A request by somebody whom nobody has heard of, for the whole GPU or some of it."""
        shared = self._chance.random() < 0.5
        memory = self._chance.randint(1, 6) * GIB if shared else 0
        name = uuid.uuid4().hex
        known = {"task_type": f"T-{name}", "client": f"client-{name}", "shared": shared, "memory": memory}
        return known | {"max_hold": 0, "max_wait": 60.0} | fields

    async def _soon(self) -> None:
        await asyncio.sleep(self._chance.uniform(0, SOON_SECONDS))

    # -- the kinds --

    async def _holds(self) -> None:
        stream = self._client.acquire(**self._request())
        lease = await stream.granted()
        await self._soon()
        await self._client.release(lease)
        await stream.until("ended")

    async def _changes_its_mind(self) -> None:
        stream = self._client.acquire(**self._request())
        await self._soon()
        stream.cancel()

    async def _comes_back(self) -> None:
        request = self._request(request_id=uuid.uuid4().hex)
        first = self._client.acquire(**request)
        await self._soon()
        first.cancel()
        again = self._client.acquire(**request)
        while (message := await again.read()) is not None:
            # Who comes back too late for what it had learns its end, and gets nothing to release.
            if message.HasField("granted"):
                await self._client.release(message.granted.lease)

    async def _session(self) -> None:
        session = self._client.session()
        await session.write(pb.SessionRequest(call_id=1, open={"holder": holder(f"session-{uuid.uuid4().hex}")}))
        for call_id in (2, 3, 4):
            await session.write(pb.SessionRequest(call_id=call_id, acquire=acquire_request(**self._request())))
        await self._soon()
        if self._chance.random() < 0.5:
            await session.write(pb.SessionRequest(call_id=5, cancel={"acquire_call_id": 2}))
            while (await session.read()).call_id != 5:
                pass
        session.cancel()

    async def _detached(self) -> None:
        request = self._request(request_id=uuid.uuid4().hex, ttl=30.0, detached=True)
        lease = await self._client.acquire(**request).granted()
        await self._client.renew(lease)
        await self._client.release(lease)

    async def _impatient(self) -> None:
        for fields in ({"busy_policy": "SKIP"}, {"max_wait": 0.002}):
            stream = self._client.acquire(**self._request(**fields))
            with contextlib.suppress(grpc.RpcError):
                while (message := await stream.read()) is not None and not message.HasField("granted"):
                    pass
            stream.cancel()

    async def _mistaken(self) -> None:
        for wrong in (self._request(task_type="no name"), self._request(memory=2**62, shared=True)):
            await self._client.acquire(**wrong).refusal()
        with contextlib.suppress(grpc.RpcError):
            await self._client.release(lease_pb2.Lease(lease_id=uuid.uuid4().hex, fencing_token=1))

    async def _watches(self) -> None:
        await self._client.snapshot(watch=True)
        await self._client.events("COOLDOWN_STARTED") if self._chance.random() < 0.02 else None

    async def _hangs_up(self) -> None:
        """A connection of its own, closed in the midst of something."""
        client = Client(self._target)
        client.acquire(**self._request(request_id=uuid.uuid4().hex))
        await self._soon()
        await client.close()

    async def _library(self) -> None:
        async with AsyncArbiter(self._target, client_id=f"library-{uuid.uuid4().hex}") as library:
            with contextlib.suppress(TimeoutError, ArbiterError):
                async with asyncio.timeout(self._chance.uniform(0.005, 0.1)), library.lease(f"T-{uuid.uuid4().hex}"):
                    await self._soon()
