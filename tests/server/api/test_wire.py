"""Bytes that are no message, messages that are too large, and thousands of damaged ones: each has its answer."""

import asyncio
from collections import Counter
from typing import Any

import grpc
import pytest

from gpuarbiter._aio import line
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter_server.api.wire import LARGEST_MESSAGE, Undecodable, checked, decoder
from gpuarbiter_server.core.errors import ArbiterError, ErrorReason
from support.damage import METHODS, SESSION, Damage
from support.messages import acquire, holder
from support.refusals import read, refusal
from support.server import InProcess, serving

SEED = 20_240_817
UNDECODABLE = [b"\xff", b"\x0a\x05ab", b"\x08", b"\x0b\x0b\x0b\x0c", b"\x07", b"\xff" * 11, b"\x12\xff\xff\xff\xff\x0f"]
# What a request may come to however it is damaged; everything but INTERNAL, UNKNOWN and what gRPC says by itself.
ORDERLY = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.ALREADY_EXISTS,
}


def raw(channel: grpc.aio.Channel, path: str) -> Any:
    """A method that takes bytes as they are."""
    method = METHODS[path]
    if method.client_streaming:
        return channel.stream_stream(path)
    return channel.unary_stream(path) if method.server_streaming else channel.unary_unary(path)


async def answered(arbiter: InProcess) -> None:
    """Still serving."""
    assert (await arbiter.snapshot()).instance_id == "instance-1"


@pytest.mark.parametrize("path", sorted(set(METHODS) - {SESSION}))
async def test_bytes_that_are_no_message_are_invalid(path: str):
    async with serving() as arbiter:
        for data in (*UNDECODABLE, invalid_utf8(path)):
            if data is None:
                continue
            call = raw(arbiter.channel, path)(data)
            answer = await refusal(call.read() if METHODS[path].server_streaming else call)
            assert answer.code is grpc.StatusCode.INVALID_ARGUMENT, data
            assert (answer.reason, answer.fields) == ("INVALID_REQUEST", {""}), data
            assert METHODS[path].input_type.full_name in answer.message
        assert await arbiter.events() == []


def invalid_utf8(path: str) -> bytes | None:
    """A message whose first text is none; None for a message without one of its own."""
    for field in METHODS[path].input_type.fields:
        if field.type == field.TYPE_STRING:
            return bytes([field.number << 3 | 2, 2, 0xC3, 0x28])
    return None


@pytest.mark.parametrize("path", sorted(set(METHODS) - {SESSION}))
async def test_an_empty_message_is_answered(path: str):
    needs_nothing = {"Snapshot", "GetConfig", "ListEvents"}
    async with serving() as arbiter:
        call = raw(arbiter.channel, path)(b"")
        if METHODS[path].name in needs_nothing:
            assert await (call.read() if METHODS[path].server_streaming else call) is not None
            call.cancel()
        else:
            answer = await refusal(call.read() if METHODS[path].server_streaming else call)
            assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


async def test_a_message_that_is_too_large_is_invalid_however_right_it_is():
    async with serving() as arbiter:
        # Unknown fields are fine with protobuf, and count like all others.
        request = acquire().SerializeToString()
        padding = LARGEST_MESSAGE - len(request) - 5
        for over, code in ((0, None), (1, grpc.StatusCode.INVALID_ARGUMENT)):
            data = request + field(1000, b"x" * (padding + over))
            assert len(data) == LARGEST_MESSAGE + over
            call = raw(arbiter.channel, "/gpuarbiter.v1.GpuArbiter/Acquire")(data)
            if code is None:
                assert pb.AcquireResponse.FromString(await call.read()).HasField("granted")
                call.cancel()
                await arbiter.at_rest()
            else:
                answer = await refusal(call.read())
                assert (answer.code, answer.reason) == (code, "INVALID_REQUEST")
                assert str(LARGEST_MESSAGE) in answer.message


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field; at most 2 MiB."""
    tag, length = number << 3 | 2, len(content)
    varint = [length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14]
    return bytes([tag & 0x7F | 0x80, tag >> 7, *varint]) + content


async def test_a_message_beyond_what_grpc_takes_is_refused_by_it_and_harms_nobody():
    async with serving() as arbiter:
        call = raw(arbiter.channel, "/gpuarbiter.v1.GpuArbiter/Release")(b"\x0a" * (4 * 1024 * 1024 + 1))
        assert (await refusal(call)).code is grpc.StatusCode.RESOURCE_EXHAUSTED
        await answered(arbiter)


async def test_an_undecodable_opening_or_call_ends_a_session_as_invalid():
    async with serving() as arbiter:
        opening = pb.SessionRequest(call_id=1, open={"holder": holder()}).SerializeToString()
        for first in ((), (opening,)):
            for data in (*UNDECODABLE, b"\x1a" * (LARGEST_MESSAGE + 1)):
                call = raw(arbiter.channel, SESSION)()
                for message in first:
                    await call.write(message)
                    assert pb.SessionResponse.FromString(await call.read()).HasField("opened")
                await call.write(data)
                answer = await refusal(call.read())
                assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"), data
                assert answer.fields == {""}


def test_decoding_never_raises():
    decode = decoder(pb.AcquireRequest, lambda _direction, _kind: lambda: None)
    assert decode(acquire("r").SerializeToString()) == acquire("r")
    for data in UNDECODABLE:
        assert isinstance(decode(data), Undecodable)


def test_what_cannot_be_decoded_is_an_invalid_request_as_a_whole():
    with pytest.raises(ArbiterError) as refused:
        checked(Undecodable("rubbish"))
    assert refused.value.reason is ErrorReason.INVALID_REQUEST
    assert [(v.field, v.description) for v in refused.value.violations] == [("", "rubbish")]


# -- damage --


async def status_of(arbiter: InProcess, path: str, data: bytes) -> grpc.StatusCode:
    """How a call begins: its status, or OK with its first answer, which ends it here."""
    method = METHODS[path]
    # A damaged ListEvents may follow what never comes; its deadline is ours.
    call = raw(arbiter.channel, path)(data, timeout=1.0)
    try:
        await (call.read() if method.server_streaming else call)
    except grpc.RpcError as error:
        follows = method.name == "ListEvents" and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        return grpc.StatusCode.OK if follows else error.code()
    finally:
        call.cancel()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("part", range(4))
async def test_damaged_requests_are_answered_in_an_orderly_way(part: int):
    damage = Damage(SEED + part)
    paths = sorted(set(METHODS) - {SESSION})
    seen: Counter[grpc.StatusCode] = Counter()
    async with serving("cooldown=0s", gpus=2) as arbiter:

        async def send(path: str, data: bytes) -> None:
            code = await status_of(arbiter, path, data)
            assert code in ORDERLY, (path, data, code)
            seen[code] += 1

        for _ in range(12):
            batch = [(path, damage.request(path)) for path in paths for _ in range(5)]
            await asyncio.gather(*(send(path, data) for path, data in batch))
        await answered(arbiter)
    assert sum(seen.values()) == 12 * 5 * len(paths)
    assert seen[grpc.StatusCode.INVALID_ARGUMENT] > 200


async def test_damaged_calls_of_a_session_are_answered_in_an_orderly_way():
    damage = Damage(SEED + 100)
    seen: Counter[int] = Counter()
    broken: Counter[str] = Counter()
    async with serving("cooldown=0s", gpus=2) as arbiter:

        async def send(data: bytes) -> None:
            call = raw(arbiter.channel, SESSION)()
            await call.write(pb.SessionRequest(call_id=1, open={"holder": holder()}).SerializeToString())
            assert pb.SessionResponse.FromString(await call.read()).HasField("opened")
            await call.write(data)
            try:
                first = pb.SessionResponse.FromString(await call.read())
            except grpc.RpcError as error:
                broken[read(error).reason] += 1
                return
            probe = pb.SessionRequest(call_id=3, check_fence={"gpu": "gpu:0", "fencing_token": 1})
            await call.write(probe.SerializeToString())
            codes = await codes_until(call, 3) | ({first.failure.code} if first.HasField("failure") else set())
            assert not codes & {grpc.StatusCode.INTERNAL.value[0], grpc.StatusCode.UNKNOWN.value[0]}, data
            seen.update(codes)
            call.cancel()

        for _ in range(25):
            await asyncio.gather(*(send(damage.session_call()) for _ in range(32)))
        await answered(arbiter)
    assert set(broken) == {"INVALID_REQUEST"}
    assert broken.total() > 100, "too few broke their session"
    assert seen[grpc.StatusCode.INVALID_ARGUMENT.value[0]] > 50, "too few were refused within one"


async def codes_until(call: Any, probe: int) -> set[int]:
    """The codes of all failures before the answer to the probe."""
    codes = set()
    while True:
        data = await call.read()
        assert data is not grpc.aio.EOF
        answer = pb.SessionResponse.FromString(data)
        if answer.call_id == probe:
            assert answer.HasField("check_fence")
            return codes
        if answer.HasField("failure"):
            codes.add(answer.failure.code)


def test_the_library_sends_nothing_that_would_end_its_session():
    assert line.LARGEST_MESSAGE == LARGEST_MESSAGE
