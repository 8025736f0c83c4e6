"""Leases that live by their ttl alone: whoever got one has it, however soon it hangs up."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from e2e.harness.client import Client, acquire_request
from gpuarbiter import Arbiter, Lease
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from support import messages
from support.messages import GIB
from support.process import Arbiterd

Connect = Callable[[Arbiterd], Client]

CLIENTS = 6
LEASES = 20


def test_a_client_that_hangs_up_as_it_is_granted_has_its_lease(arbiter: Arbiterd):
    together = threading.Barrier(CLIENTS)

    def work(_: int) -> None:
        with Arbiter(arbiter.grpc) as library:
            together.wait(10)
            for _ in range(LEASES):
                lease = library.acquire("TASK", memory=GIB // 8, shared=True, ttl=60, detached=True, max_wait=30)
                assert isinstance(lease, Lease)
                lease.renew()
                assert not lease.release().already_ended

    with ThreadPoolExecutor(CLIENTS) as pool:
        assert len(list(pool.map(work, range(CLIENTS)))) == CLIENTS


async def test_a_session_that_ends_as_it_is_granted_has_its_leases(arbiter: Arbiterd, connect: Connect):
    client = connect(arbiter)

    async def work(number: int) -> None:
        for turn in range(LEASES):
            session = client.session()
            await session.write(pb.SessionRequest(call_id=1, open=pb.SessionOpen(holder=messages.holder("session"))))
            request = acquire_request(
                client="session",
                memory=GIB // 8,
                shared=True,
                ttl=60,
                detached=True,
                request_id=f"of-session-{number}-{turn}",
            )
            await session.write(pb.SessionRequest(call_id=2, acquire=request))
            while not (answer := await session.read()).acquire.HasField("granted"):
                pass
            session.cancel()
            lease = answer.acquire.granted.lease
            await client.renew(lease)
            assert not (await client.release(lease)).already_ended

    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(work(number))
