"""The synchronous client against grpcio-testing's channel: no network, no server, no clock."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import grpc
import grpc_testing
import pytest

from fakes.scripted_arbiter import seconds
from gpuarbiter import Arbiter, ArbiterUnavailable, Fence
from gpuarbiter._sync import backend
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import lease_pb2, snapshot_pb2

SERVICE = pb.DESCRIPTOR.services_by_name["GpuArbiter"]


@pytest.fixture
def channel(monkeypatch: pytest.MonkeyPatch):
    """The testing channel, in place of every channel."""
    made = grpc_testing.channel([SERVICE], grpc_testing.strict_real_time())
    monkeypatch.setattr(backend, "open_channel", lambda *_arguments: made)
    monkeypatch.setattr(type(made), "close", lambda _self: None)
    return made


@pytest.fixture
def pool():
    """A thread for the caller."""
    with ThreadPoolExecutor(1) as executor:
        yield executor


def test_a_fence_is_checked(channel: grpc_testing.Channel, pool: ThreadPoolExecutor):
    answer = pool.submit(Arbiter("node:1", token="secret").check_fence, "gpu:0", 7)
    metadata, request, rpc = channel.take_unary_unary(SERVICE.methods_by_name["CheckFence"])
    assert request == pb.CheckFenceRequest(gpu="gpu:0", fencing_token=7)
    assert dict(metadata)["authorization"] == "Bearer secret"
    rpc.terminate(pb.CheckFenceResponse(current=True, newest_token=9), (), grpc.StatusCode.OK, "")
    assert answer.result() == Fence(current=True, newest_token=9)


def test_a_release_is_converted(channel: grpc_testing.Channel, pool: ThreadPoolExecutor):
    answer = pool.submit(Arbiter("node:1").release, request_id="mine")
    _, request, rpc = channel.take_unary_unary(SERVICE.methods_by_name["Release"])
    assert request == pb.ReleaseRequest(request_id="mine")
    response = pb.ReleaseResponse(reason=lease_pb2.END_REASON_CANCELLED, held=seconds(2), already_ended=True)
    rpc.terminate(response, (), grpc.StatusCode.OK, "")
    ended = answer.result()
    assert (ended.reason, ended.held, ended.already_ended) == ("CANCELLED", timedelta(seconds=2), True)


def test_a_failure_is_converted(channel: grpc_testing.Channel, pool: ThreadPoolExecutor):
    answer = pool.submit(Arbiter("node:1").release, lease_id="x")
    _, _, rpc = channel.take_unary_unary(SERVICE.methods_by_name["Release"])
    rpc.terminate(None, (), grpc.StatusCode.UNAVAILABLE, "no route")
    with pytest.raises(ArbiterUnavailable, match="arbiter at node:1 cannot be reached: no route"):
        answer.result()


def test_a_snapshot_is_the_first_of_its_stream(channel: grpc_testing.Channel, pool: ThreadPoolExecutor):
    answer = pool.submit(Arbiter("node:1").snapshot)
    _, _, rpc = channel.take_unary_stream(SERVICE.methods_by_name["Snapshot"])
    rpc.send_response(pb.SnapshotResponse(snapshot=snapshot_pb2.ArbiterSnapshot(revision=5)))
    assert answer.result().revision == 5


def test_a_stream_that_fails_is_converted(channel: grpc_testing.Channel, pool: ThreadPoolExecutor):
    answer = pool.submit(Arbiter("node:1").snapshot)
    _, _, rpc = channel.take_unary_stream(SERVICE.methods_by_name["Snapshot"])
    rpc.terminate((), grpc.StatusCode.UNAVAILABLE, "gone")
    with pytest.raises(ArbiterUnavailable, match="gone"):
        answer.result()
