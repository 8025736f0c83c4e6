"""Everything works from grpcurl, by reflection alone."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.harness.grpcurl import Grpcurl
from fakes.nvml import FakeNvml
from fakes.polling import until
from support.messages import GIB
from support.process import Arbiterd

pytestmark = pytest.mark.tool("grpcurl")

Start = Callable[..., Arbiterd]
Point = Callable[[Arbiterd], Grpcurl]

HOLDER = {"client_id": "grpcurl"}
EXCLUSIVE = {"task_type": "ASR", "holder": HOLDER}


@pytest.fixture
def grpcurl(tool: Callable[[str], str]) -> Iterator[Point]:
    made: list[Grpcurl] = []

    def point(arbiter: Arbiterd) -> Grpcurl:
        made.append(Grpcurl(tool("grpcurl"), arbiter.grpc))
        return made[-1]

    yield point
    for each in made:
        each.close()


def shared(memory: int) -> dict[str, Any]:
    return EXCLUSIVE | {"gpu": {"sharing": "SHARING_SHARED", "memory_bytes": memory}}


def named(lease: dict[str, Any]) -> dict[str, Any]:
    return {"lease_id": lease["lease_id"], "fencing_token": lease["fencing_token"]}


def test_list_and_describe(arbiter: Arbiterd, grpcurl: Point):
    run = grpcurl(arbiter)
    services = run(arbiter.grpc, "list").split()
    assert {"gpuarbiter.v1.GpuArbiter", "gpuarbiter.v1.GpuArbiterAdmin", "grpc.health.v1.Health"} <= set(services)
    methods = run(arbiter.grpc, "list", "gpuarbiter.v1.GpuArbiter").split()
    assert "gpuarbiter.v1.GpuArbiter.Session" in methods
    assert len(methods) == 8
    described = run(arbiter.grpc, "describe", "gpuarbiter.v1.GpuArbiter.Acquire")
    assert "stream .gpuarbiter.v1.AcquireResponse" in described
    message = run(arbiter.grpc, "describe", "gpuarbiter.v1.AcquireRequest")
    assert ".google.protobuf.Duration max_wait = 7;" in message
    template = run("-msg-template", arbiter.grpc, "describe", "gpuarbiter.v1.Holder")
    assert '"client_id": ""' in template


def test_the_unix_socket_answers_too(arbiter: Arbiterd, tool: Callable[[str], str]):
    run = Grpcurl(tool("grpcurl"), arbiter.socket)
    assert run.call("GpuArbiter/Snapshot")["snapshot"]["node"] == "test-node"


def test_acquire_streams_queued_then_granted_after_a_release(arbiter: Arbiterd, grpcurl: Point):
    run = grpcurl(arbiter)
    first = run.start("GpuArbiter/Acquire", EXCLUSIVE)
    lease = first.next("granted")["lease"]
    assert lease["task_type"] == "ASR"
    assert lease["visible_devices"] == lease["gpus"][0]["uuid"]
    second = run.start("GpuArbiter/Acquire", EXCLUSIVE | {"max_wait": "30s"})
    queued = second.next("queued")
    assert (queued["position"], queued["reason"]) == (1, "WAIT_REASON_GPU_BUSY")
    assert queued["blockers"][0]["lease_id"] == lease["lease_id"]
    released = run.call("GpuArbiter/Release", named(lease))
    assert released["reason"] == "END_REASON_RELEASED"
    assert "already_ended" not in released
    granted = second.until("granted")["lease"]
    assert int(granted["fencing_token"]) > int(lease["fencing_token"])
    assert first.next("ended")["reason"] == "END_REASON_RELEASED"
    assert first.ends() == 0
    assert run.call("GpuArbiter/Release", named(lease))["already_ended"]


def test_a_skip_declines_after_its_max_wait(arbiter: Arbiterd, grpcurl: Point):
    run = grpcurl(arbiter)
    run.start("GpuArbiter/Acquire", EXCLUSIVE).next("granted")
    # The built-in policies of the example configuration are the operator's; this one says it itself.
    skip = EXCLUSIVE | {"busy_policy": "BUSY_POLICY_SKIP", "max_wait": "0.4s"}
    *queued, last = run.answers("GpuArbiter/Acquire", skip)
    assert all("queued" in answer for answer in queued)
    declined = last["declined"]
    assert (declined["decision"], declined["reason"]) == ("BUSY_POLICY_SKIP", "WAIT_REASON_TIMEOUT")
    assert 0.4 <= float(declined["waited"].removesuffix("s")) < 5
    assert declined["blockers"][0]["client_id"] == "grpcurl"


def test_snapshot_once_and_with_watch(arbiterd: Start, grpcurl: Point):
    run = grpcurl(arbiterd("gpus=sim:2x24GiB"))
    once = run.answers("GpuArbiter/Snapshot")
    assert len(once) == 1
    assert [gpu["key"] for gpu in once[0]["snapshot"]["gpus"]] == ["gpu:0", "gpu:1"]
    watch = run.start("GpuArbiter/Snapshot", {"watch": True, "min_interval": "0.05s"})
    before = watch.next("snapshot")
    assert "leases" not in before
    lease = run.start("GpuArbiter/Acquire", EXCLUSIVE).next("granted")["lease"]
    while "leases" not in (after := watch.next("snapshot")):
        pass
    assert after["leases"][0]["lease_id"] == lease["lease_id"]
    assert int(after["revision"]) > int(before["revision"])


def test_renew(arbiter: Arbiterd, grpcurl: Point):
    run = grpcurl(arbiter)
    detached = EXCLUSIVE | {"request_id": "job-1", "ttl": "60s", "detached": True, "max_hold": "20s"}
    lease = run.answers("GpuArbiter/Acquire", detached)[-1]["granted"]["lease"]
    renewed = run.call("GpuArbiter/Renew", named(lease))
    assert renewed["ttl_remaining"] == "60s"
    assert 0 < float(renewed["hold_remaining"].removesuffix("s")) < 20
    run.call("GpuArbiter/Release", {"request_id": "job-1"})
    said = run.fails("GpuArbiter/Renew", named(lease))
    assert "Code: FailedPrecondition" in said
    assert "LEASE_ENDED" in said


def test_resize_from_exclusive_to_shared(arbiter: Arbiterd, grpcurl: Point):
    run = grpcurl(arbiter)
    loading = run.start("GpuArbiter/Acquire", EXCLUSIVE)
    lease = loading.next("granted")["lease"]
    beside = run.start("GpuArbiter/Acquire", shared(4 * GIB) | {"max_wait": "30s"})
    assert beside.next("queued")["reason"] == "WAIT_REASON_GPU_BUSY"
    resize = named(lease) | {"sharing": "SHARING_SHARED", "memory_bytes": 6 * GIB}
    resized = run.call("GpuArbiter/Resize", resize)["lease"]
    assert resized["sharing"] == "SHARING_SHARED"
    assert resized["gpus"][0]["committed_bytes"] == str(6 * GIB)
    beside.until("granted")
    # Alone again it cannot be while the other is there, and nothing has changed for asking.
    said = run.fails("GpuArbiter/Resize", named(lease) | {"sharing": "SHARING_EXCLUSIVE"})
    assert "RESIZE_REFUSED" in said
    memory = run.call("GpuArbiter/Snapshot")["snapshot"]["gpus"][0]["memory"]
    assert memory["committed_bytes"] == str(10 * GIB)


def test_check_fence_is_false_for_an_older_token(arbiter: Arbiterd, grpcurl: Point):
    run = grpcurl(arbiter)
    tokens = []
    for _ in range(2):
        holding = run.start("GpuArbiter/Acquire", EXCLUSIVE)
        lease = holding.next("granted")["lease"]
        tokens.append(lease["fencing_token"])
        checked = run.call("GpuArbiter/CheckFence", {"gpu": "gpu:0", "fencing_token": tokens[-1]})
        assert checked == {"current": True, "newest_token": tokens[-1]}
        if len(tokens) == 1:
            run.call("GpuArbiter/Release", named(lease))
    old = run.call("GpuArbiter/CheckFence", {"gpu": "0", "fencing_token": tokens[0]})
    assert old == {"newest_token": tokens[1]}


def test_drain_and_resume(arbiterd: Start, grpcurl: Point):
    run = grpcurl(arbiterd())
    holding = run.start("GpuArbiter/Acquire", shared(GIB))
    lease = holding.next("granted")["lease"]
    assert run.call("GpuArbiterAdmin/Drain", {"all": True, "reason": "new driver"}) == {"leases_left": 1}
    waiting = run.start("GpuArbiter/Acquire", shared(GIB) | {"max_wait": "30s"})
    assert waiting.next("queued")["reason"] == "WAIT_REASON_DRAINING"
    assert run.call("GpuArbiter/Snapshot")["snapshot"]["gpus"][0]["cordoned"]
    run.call("GpuArbiter/Release", named(lease))
    assert run.call("GpuArbiterAdmin/Resume", {"gpus": ["gpu:0"]}) == {}
    waiting.until("granted")
    events = [answer["type"] for answer in run.answers("GpuArbiterAdmin/ListEvents")]
    kept = [kind for kind in events if kind in {"EVENT_TYPE_DRAINED", "EVENT_TYPE_RESUMED"}]
    assert kept == ["EVENT_TYPE_DRAINED", "EVENT_TYPE_RESUMED"]


def test_health(arbiter: Arbiterd, grpcurl: Point):
    run = grpcurl(arbiter)
    for service in ("", "gpuarbiter.v1.GpuArbiter", "gpuarbiter.v1.GpuArbiterAdmin"):
        assert run.call("grpc.health.v1.Health/Check", {"service": service}) == {"status": "SERVING"}


@pytest.mark.parametrize("gpus", ["simulated", "NVML", "NVML, with processes of others"])
def test_ctrl_c_frees_the_gpu_without_a_cooldown(arbiterd: Start, grpcurl: Point, tmp_path: Path, gpus: str):
    if gpus == "simulated":
        arbiter = arbiterd("cooldown=10m")
    else:
        fake = FakeNvml(tmp_path)
        if gpus != "NVML":
            fake.allocate(0, 1, 2 * GIB)
        arbiter = arbiterd("gpus=auto", "cooldown=10m", more=fake.env)
    run = grpcurl(arbiter)
    holding = run.start("GpuArbiter/Acquire", EXCLUSIVE)
    lease = holding.next("granted")["lease"]
    waiting = run.start("GpuArbiter/Acquire", EXCLUSIVE | {"max_wait": "30s"})
    waiting.next("queued")
    holding.ctrl_c()
    waiting.until("granted")
    events = run.answers("GpuArbiterAdmin/ListEvents")
    ended = [event for event in events if event["type"] == "EVENT_TYPE_ENDED"]
    assert [event["lease_id"] for event in ended] == [lease["lease_id"]]
    assert ended[0]["detail"].startswith("DISCONNECTED")
    assert not [event for event in events if "COOLDOWN" in event["type"]]


def test_ctrl_c_while_waiting_leaves_nothing_behind(arbiter: Arbiterd, grpcurl: Point):
    run = grpcurl(arbiter)
    run.start("GpuArbiter/Acquire", EXCLUSIVE).next("granted")
    waiting = run.start("GpuArbiter/Acquire", EXCLUSIVE | {"max_wait": "30s"})
    waiting.next("queued")
    waiting.ctrl_c()
    until(lambda: "queue_length" not in run.call("GpuArbiter/Snapshot")["snapshot"], "for the queue to be empty")


def test_a_refusal_shows_its_details(arbiterd: Start, grpcurl: Point):
    run = grpcurl(arbiterd("queue_limit=0"))
    run.start("GpuArbiter/Acquire", EXCLUSIVE).next("granted")
    said = run.fails("GpuArbiter/Acquire", EXCLUSIVE | {"max_wait": "5s"})
    for part in ("Code: ResourceExhausted", "QUEUE_FULL", "retry_delay", '"holder": "grpcurl"'):
        assert part in said
    said = run.fails("GpuArbiter/Acquire", {"task_type": "no spaces", "holder": HOLDER})
    for part in ("Code: InvalidArgument", "field_violations", "task_type"):
        assert part in said
