"""What becomes of a request that cannot be granted at once."""

from typing import Any

import pytest

from core.world import GIB, PATIENT, START, World, gpus, settings
from gpuarbiter_server.core import effects as fx
from gpuarbiter_server.core.errors import ErrorReason
from gpuarbiter_server.core.model import BusyPolicy, EventType, WaitReason
from gpuarbiter_server.core.policy import Policy

DECLINING = pytest.mark.parametrize("busy", [BusyPolicy.SKIP, BusyPolicy.FALLBACK_CPU])


def test_wait_fails_when_max_wait_is_over() -> None:
    world = World(settings_=settings(policy=Policy(max_wait=3.0, max_hold=0)))
    holder = world.acquire("LLM", "llama")
    ahead = world.acquire(priority=90, max_wait=60)
    waiting = world.acquire(client="late")
    world.advance(2.875)
    assert waiting.waiting
    world.advance(0.125)
    assert waiting.error.reason is ErrorReason.WAIT_TIMEOUT
    assert waiting.error.retry_after == 1.0
    assert waiting.error.metadata == {
        "wait_reason": "GPU_BUSY",
        "holder": "llama",
        "holder_task_type": "LLM",
        "holder_gpu": "gpu:0",
        "held_seconds": "3.000",
        "waited_seconds": "3.000",
        "position": "2",
    }
    assert "waited 3.000 s of at most 3 s: a lease is in the way (gpu:0: LLM of llama, for 3.0 s)" in (
        waiting.error.message
    )
    assert (holder.held, ahead.waiting) == (True, True)
    assert world.gpu().stats.timed_out == 1
    assert world.recorded(EventType.FAILED)[-1].outcome == "timeout"


def test_no_wait_at_all() -> None:
    world = World(settings_=settings(queue_limit=0))
    holder = world.acquire()
    refused = world.acquire(max_wait=0)
    assert refused.error.reason is ErrorReason.WAIT_TIMEOUT
    assert not refused.of(fx.Queued)
    world.release(holder)
    assert world.acquire(max_wait=0).held


def test_no_limit_of_the_wait() -> None:
    world = World(settings_=settings(policy=PATIENT))
    holder = world.acquire()
    waiting = world.acquire()
    world.advance(10**5)
    world.release(holder)
    assert waiting.held
    assert waiting.lease.queue_wait == 10**5


@DECLINING
def test_declined_at_once_with_what_is_in_the_way(busy: BusyPolicy) -> None:
    world = World()
    world.acquire("LLM", "llama")
    world.advance(2)
    declined = world.acquire(busy=busy, max_wait=0).declined
    assert declined.decision is busy
    assert declined.reason is WaitReason.GPU_BUSY
    assert declined.waited == 0
    assert declined.retry_after == 1.0
    assert [(b.client_id, b.task_type, b.gpu, b.held) for b in declined.blockers] == [("llama", "LLM", "gpu:0", 2.0)]
    assert "LLM of llama" in declined.detail
    assert world.gpu().stats.declined == 1


@DECLINING
def test_declined_when_max_wait_is_over(busy: BusyPolicy) -> None:
    world = World()
    world.acquire()
    stream = world.acquire(busy=busy, max_wait=0.375)
    assert stream.queued.reason is WaitReason.GPU_BUSY
    world.advance(0.25)
    assert stream.waiting
    world.advance(0.125)
    assert stream.declined.reason is WaitReason.TIMEOUT
    assert stream.declined.waited == 0.375
    outcome = {BusyPolicy.SKIP: "skipped", BusyPolicy.FALLBACK_CPU: "fallback_cpu"}[busy]
    assert world.recorded(EventType.DECLINED)[-1].outcome == outcome


@DECLINING
def test_granted_while_it_waits_to_be_declined(busy: BusyPolicy) -> None:
    world = World()
    holder = world.acquire()
    stream = world.acquire(busy=busy, max_wait=1)
    world.advance(0.5)
    world.release(holder)
    assert stream.held
    world.advance(5)
    assert stream.held


@DECLINING
@pytest.mark.parametrize(
    ("obstacle", "reason"),
    [
        ("full", WaitReason.QUEUE_FULL),
        ("lost", WaitReason.GPU_UNHEALTHY),
        ("draining", WaitReason.DRAINING),
        ("infeasible", WaitReason.INFEASIBLE),
        ("too many", WaitReason.INFEASIBLE),
        ("shutdown", WaitReason.SHUTDOWN),
        ("client limit", WaitReason.CONCURRENCY_LIMIT),
        ("waiting limit", WaitReason.QUEUE_FULL),
    ],
)
def test_whatever_keeps_a_valid_request_from_a_gpu_is_declined(
    busy: BusyPolicy, obstacle: str, reason: WaitReason
) -> None:
    world = World(settings_=settings(queue_limit=1, waiting_per_client=1))
    wishes: dict[str, Any] = {"busy": busy, "max_wait": 1.0, "client": "c"}
    match obstacle:
        case "full":
            world.acquire()
            world.acquire()
        case "waiting limit":
            world.configure(queue_limit=9)
            world.acquire(client="c")
            world.acquire(client="c")
        case "lost":
            world.lose()
        case "draining":
            world.drain()
        case "infeasible":
            wishes["memory"] = 25 * GIB
        case "too many":
            wishes["count"] = 2
        case "shutdown":
            world.shut_down()
        case "client limit":
            world.configure(leases_per_client=1)
            world.acquire(client="c")
    stream = world.acquire(**wishes)
    assert stream.declined.reason is reason
    assert stream.declined.decision is busy
    assert stream.declined.detail
    assert not stream.of(fx.Queued)
    assert stream.call not in world.state.calls


@pytest.mark.parametrize(
    ("obstacle", "reason", "retry"),
    [
        ("full", ErrorReason.QUEUE_FULL, True),
        ("lost", ErrorReason.GPU_UNAVAILABLE, False),
        ("infeasible", ErrorReason.INFEASIBLE, False),
        ("shutdown", ErrorReason.SHUTDOWN, True),
    ],
)
def test_who_waits_gets_the_error(obstacle: str, reason: ErrorReason, retry: bool) -> None:
    world = World(settings_=settings(queue_limit=0))
    match obstacle:
        case "full":
            world.acquire()
        case "lost":
            world.lose()
        case "shutdown":
            world.shut_down()
    stream = world.acquire(memory=25 * GIB if obstacle == "infeasible" else 0)
    assert stream.error.reason is reason
    assert (stream.error.retry_after is not None) == retry


def test_a_cordoned_gpu_lets_requests_wait() -> None:
    world = World()
    world.drain(reason="new driver")
    waiting = world.acquire()
    assert waiting.queued.reason is WaitReason.DRAINING
    world.advance(60)
    world.resume()
    assert waiting.held


def test_who_skips_when_every_gpu_is_drained_while_it_waits_declines_in_time() -> None:
    world = World()
    holder = world.acquire()
    stream = world.acquire(busy=BusyPolicy.SKIP, max_wait=1)
    world.drain()
    world.release(holder)
    assert stream.waiting
    world.advance(1)
    assert stream.declined.reason is WaitReason.TIMEOUT


def test_the_policy_says_what_the_request_does_not() -> None:
    policies = {"REPAIR": Policy(busy_policy=BusyPolicy.SKIP, max_wait=0.5, max_hold=0)}
    world = World(settings_=settings(policies=policies))
    world.acquire("REPAIR")
    skipped, kept = world.acquire("REPAIR"), world.acquire("REPAIR", busy=BusyPolicy.WAIT, max_wait=9)
    world.advance(1)
    assert skipped.declined.waited == 0.5
    assert kept.waiting


def test_a_retry_makes_sense_after_a_typical_hold() -> None:
    world = World(gpus(2))
    for hold, gpu in ((4.0, "gpu:0"), (2.0, "gpu:1"), (0.0, "gpu:1"), (6.0, "gpu:1")):
        lease = world.acquire(candidates=(gpu,))
        world.advance(hold)
        world.release(lease)
    world.acquire(count=2)
    assert world.acquire(max_wait=0).error.retry_after == 2.0
    assert world.acquire(max_wait=0, candidates=("gpu:0",)).error.retry_after == 4.0


def test_a_retry_is_never_at_once() -> None:
    world = World()
    world.release(world.acquire())
    world.acquire()
    assert world.acquire(max_wait=0).error.retry_after == 0.1
    assert world.now == START
