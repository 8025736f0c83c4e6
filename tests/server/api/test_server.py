"""Where the server listens, who else may, and what it says of its health."""

import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import gpu_arbiter_pb2_grpc as rpc
from gpuarbiter_server.api.server import GrpcServer, ListenError
from gpuarbiter_server.api.sockets import claim, remove_leftover
from support.refusals import refusal
from support.server import InProcess, configured, gpu_specs, serving

SERVICES = ("", "gpuarbiter.v1.GpuArbiter", "gpuarbiter.v1.GpuArbiterAdmin")


@asynccontextmanager
async def server() -> AsyncIterator[GrpcServer]:
    """One that does not listen yet."""
    arbiter = InProcess(configured(), gpu_specs(), ())
    arbiter.runtime.start(arbiter.machine)
    try:
        yield arbiter.server
    finally:
        await arbiter.server.stop(0.0)


async def answers(target: str) -> bool:
    async with grpc.aio.insecure_channel(target) as channel:
        snapshot = await rpc.GpuArbiterStub(channel).Snapshot(pb.SnapshotRequest()).read()
        return bool(snapshot.snapshot.instance_id)


async def test_a_tcp_port_belongs_to_one_server():
    async with server() as first, server() as second:
        port = first.listen_tcp("127.0.0.1:0")
        with pytest.raises(ListenError, match=f"127.0.0.1:{port} is in use"):
            second.listen_tcp(f"127.0.0.1:{port}")
        await first.start()
        assert await answers(f"127.0.0.1:{port}")


@pytest.mark.parametrize("name", ["arbiter.sock", "a b", "50%41", "a?b#c", "ä"])
async def test_a_unix_socket_is_found_under_its_very_name(tmp_path: Path, name: str):
    path = tmp_path / name
    async with server() as listening:
        listening.listen_unix(path)
        await listening.start()
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert await answers(f"unix:{quote(str(path))}")
    assert not path.exists()


async def test_only_its_user_can_reach_a_unix_socket(tmp_path: Path):
    path = tmp_path / "below" / "arbiter.sock"
    mask = os.umask(0)
    try:
        async with server() as listening:
            listening.listen_unix(path)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert os.umask(0) == 0, "the umask is as it was"
    finally:
        os.umask(mask)


async def test_a_unix_socket_belongs_to_one_server(tmp_path: Path):
    path = tmp_path / "arbiter.sock"
    async with server() as first:
        first.listen_unix(path)
        await first.start()
        async with server() as second:
            with pytest.raises(ListenError, match=f"cannot listen on unix:{path}: another arbiter holds"):
                second.listen_unix(path)
        assert await answers(f"unix:{path}"), "the second one, refused, took nothing away"
    async with server() as third:
        third.listen_unix(path)


async def test_the_socket_of_a_crashed_arbiter_is_taken_over(tmp_path: Path):
    path = tmp_path / "arbiter.sock"
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(path))
    async with server() as listening:
        listening.listen_unix(path)
        await listening.start()
        assert await answers(f"unix:{path}")


async def test_a_socket_at_which_a_stranger_answers_is_left_alone(tmp_path: Path):
    path = tmp_path / "arbiter.sock"
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(path))
        stranger.listen()
        async with server() as listening:
            with pytest.raises(ListenError, match="somebody answers at"):
                listening.listen_unix(path)
        assert path.exists()


async def test_what_is_no_socket_is_never_removed(tmp_path: Path):
    path = tmp_path / "precious.txt"
    path.write_text("data")
    async with server() as listening:
        with pytest.raises(ListenError, match="is no socket"):
            listening.listen_unix(path)
    assert path.read_text() == "data"


async def test_a_path_that_cannot_be_says_why(tmp_path: Path):
    (tmp_path / "file").write_text("")
    async with server() as listening:
        with pytest.raises(ListenError, match="File exists"):
            listening.listen_unix(tmp_path / "file" / "arbiter.sock")
        with pytest.raises(ListenError, match="does not take the path"):
            listening.listen_unix(tmp_path / ("x" * 107))


async def test_a_folder_that_others_can_write_to_is_no_place_for_a_socket(tmp_path: Path):
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    async with server() as listening:
        with pytest.raises(ListenError, match="choose a folder of your own"):
            listening.listen_unix(folder / "arbiter.sock")
        folder.chmod(0o1777)
        listening.listen_unix(folder / "arbiter.sock")


async def test_a_path_that_was_refused_can_be_claimed_later(tmp_path: Path):
    path = tmp_path / "arbiter.sock"
    path.write_text("")
    with pytest.raises(OSError, match="no socket"):
        claim(path)
    path.unlink()
    os.close(claim(path))


def test_a_leftover_that_is_gone_meanwhile_is_fine(tmp_path: Path):
    remove_leftover(tmp_path / "nothing")


async def health_of(stub: health_pb2_grpc.HealthStub) -> set[int]:
    checks = [await stub.Check(health_pb2.HealthCheckRequest(service=name)) for name in SERVICES]
    return {check.status for check in checks}


async def test_health_tells_whether_new_work_is_taken():
    async with serving() as arbiter:
        stub = health_pb2_grpc.HealthStub(arbiter.channel)
        assert await health_of(stub) == {health_pb2.HealthCheckResponse.SERVING}
        await arbiter.server.announce(serving=False)
        assert await health_of(stub) == {health_pb2.HealthCheckResponse.NOT_SERVING}
        assert (await arbiter.snapshot()).instance_id, "calls are answered still"
        answer = await refusal(stub.Check(health_pb2.HealthCheckRequest(service="nonsense")))
        assert answer.code is grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_what_is_served():
    async with serving() as arbiter:
        stub = reflection_pb2_grpc.ServerReflectionStub(arbiter.channel)
        call = stub.ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        listed = {service.name for service in (await call.read()).list_services_response.service}
        assert listed == {
            *SERVICES[1:],
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        for symbol in (*SERVICES[1:], "gpuarbiter.v1.GpuArbiter.Acquire", "gpuarbiter.v1.Lease"):
            await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))
            assert (await call.read()).file_descriptor_response.file_descriptor_proto, symbol
        await call.done_writing()


@pytest.mark.parametrize(
    ("path", "streams"),
    [
        ("/grpc.health.v1.Health/Check", False),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", True),
    ],
)
async def test_health_and_reflection_take_whole_messages_only(path: str, streams: bool):
    async with serving() as arbiter:
        if streams:
            call = arbiter.channel.stream_stream(path)()
            await call.write(b"\xff")
            answer = await refusal(call.read())
        else:
            answer = await refusal(arbiter.channel.unary_unary(path)(b"\xff"))
        assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


async def test_what_is_not_served_is_unimplemented():
    async with serving() as arbiter:
        answer = await refusal(arbiter.channel.unary_unary("/gpuarbiter.v1.GpuArbiter/Nonsense")(b""))
        assert answer.code is grpc.StatusCode.UNIMPLEMENTED
