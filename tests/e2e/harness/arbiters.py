"""What tests ask of a real arbiter beside its API, and what they do to it."""

import asyncio
import signal
import time
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.error import HTTPError

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from e2e.harness.client import Client
from e2e.harness.waiting import eventually
from gpuarbiter.v1 import lease_pb2
from support.process import Arbiterd

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
# What an arbiter on a busy machine may need more than it should, before a test takes it for wrong.
LATE_SECONDS = 3.0


async def health(arbiter: Arbiterd) -> int:
    """What gRPC health says."""
    async with grpc.aio.insecure_channel(arbiter.grpc) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        status: int = (await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)).status
        return status


async def readiness(arbiter: Arbiterd) -> tuple[int, str]:
    """What /readyz says."""

    def get() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{arbiter.http}/readyz", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(get)


async def shows(arbiter: Arbiterd, status: int) -> None:
    """Waits for its health to be this."""

    async def look() -> bool:
        return await health(arbiter) == status

    await eventually(look, f"health {status}")


async def holds(condition: Callable[[], object], what: str) -> None:
    """Waits for what can be seen without asking anybody."""

    async def look() -> object:
        return condition()

    await eventually(look, what)


def kill(arbiter: Arbiterd) -> None:
    """SIGKILL; returns once it is gone."""
    arbiter.signal(signal.SIGKILL)
    arbiter.wait()


async def timed(work: Awaitable[Any]) -> float:
    """How many seconds it takes."""
    began = time.monotonic()
    await work
    return time.monotonic() - began


async def detached(client: Client, name: str, ttl: float, **wishes: Any) -> lease_pb2.Lease:
    """A lease that lives by its ttl alone."""
    return await client.acquire(client=name, request_id=name, ttl=ttl, detached=True, max_hold=0, **wishes).granted()


def same(one: lease_pb2.Lease, other: lease_pb2.Lease) -> bool:
    """Whether they are one lease, as told twice."""
    return (one.lease_id, one.fencing_token) == (other.lease_id, other.fencing_token)
