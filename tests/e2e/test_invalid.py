"""Messages by the thousand that must be refused: none may change anything, and none may break anything.

3,000 in the normal run, others each time; 100,000 with GPU_ARBITER_SOAK.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from e2e.harness.client import Acquiring, Client
from e2e.harness.leftovers import nothing_left
from e2e.harness.nonsense import Nonsense, Source
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from support import soak
from support.damage import METHODS, SESSION
from support.messages import holder
from support.process import Arbiterd

Start = Callable[..., Arbiterd]
Connect = Callable[[Arbiterd], Client]

MESSAGES = 100_000 if soak.wanted() else 3_000
BATCH = 500
AT_A_TIME = 48
# GPUs that are known by name only: nothing changes by itself, as readings would.
GPUS = "gpus=[{key: 'gpu:0', memory: 24GiB}, {key: 'gpu:1', memory: 24GiB}]"
# What a sound message may come to, whatever it says.
ORDERLY = {
    "OK",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "FAILED_PRECONDITION",
    "RESOURCE_EXHAUSTED",
    "ABORTED",
    "ALREADY_EXISTS",
}
# A sound message that follows or waits has had its answer when nothing else came for so long.
FOLLOWED_SECONDS = 0.5


class Sender:
    """Sends bytes as they are, and says by its name what status they come to."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.aio.insecure_channel(target)
        self._room = asyncio.Semaphore(AT_A_TIME)

    async def statuses(self, messages: list[Nonsense]) -> list[tuple[Nonsense, str]]:
        """All at a time, more or less; those of one session that can be decoded, over one stream."""
        calls = [each for each in messages if each.path == SESSION and not each.undecodable]
        others = [each for each in messages if each.path != SESSION or each.undecodable]
        ended = await asyncio.gather(self._session(calls), *(self._one(each) for each in others))
        return ended[0] + list(zip(others, ended[1:], strict=True))

    async def _one(self, message: Nonsense) -> str:
        async with self._room:
            call, answer = self._start(message)
            try:
                await answer
            except grpc.RpcError as error:
                follows = message.sound and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                return "OK" if follows else error.code().name
            finally:
                call.cancel()
        return "OK"

    def _start(self, message: Nonsense) -> tuple[Any, Any]:
        seconds = FOLLOWED_SECONDS if message.sound else 30.0
        if message.path == SESSION:
            call: Any = self._channel.stream_stream(SESSION)(timeout=seconds)
            return call, _opened(call, message.data)
        if METHODS[message.path].server_streaming:
            call = self._channel.unary_stream(message.path)(message.data, timeout=seconds)
            return call, call.read()
        call = self._channel.unary_unary(message.path)(message.data, timeout=seconds)
        return call, call

    async def _session(self, messages: list[Nonsense]) -> list[tuple[Nonsense, str]]:
        """Calls that are to fail, one by one, in a session that outlives them all."""
        if not messages:
            return []
        call: Any = self._channel.stream_stream(SESSION)()
        await call.write(_opening())
        assert pb.SessionResponse.FromString(await call.read()).HasField("opened")
        found = []
        for message in messages:
            await call.write(message.data)
            answer = pb.SessionResponse.FromString(await call.read())
            assert answer.call_id == pb.SessionRequest.FromString(message.data).call_id, message
            found.append((message, _status_name(answer)))
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        return found

    async def _sound_call(self, message: Nonsense) -> str:
        """A call in a session of its own, and its first answer."""
        async with self._room:
            call: Any = self._channel.stream_stream(SESSION)(timeout=30)
            await call.write(_opening())
            await call.read()
            await call.write(message.data)
            answer = pb.SessionResponse.FromString(await call.read())
            call.cancel()
        return _status_name(answer)

    async def one(self, message: Nonsense) -> str:
        """One message by itself, which may be sound."""
        return await (self._sound_call(message) if message.path == SESSION else self._one(message))

    async def close(self) -> None:
        await self._channel.close()


def _opening() -> bytes:
    return pb.SessionRequest(call_id=1, open={"holder": holder("session")}).SerializeToString()


async def _opened(call: Any, data: bytes) -> None:
    """The opening of a session, and then these bytes; raises as the session ends."""
    await call.write(_opening())
    assert pb.SessionResponse.FromString(await call.read()).HasField("opened")
    await call.write(data)
    await call.read()


def _status_name(answer: pb.SessionResponse) -> str:
    numbers = {code.value[0]: code.name for code in grpc.StatusCode}
    return numbers[answer.failure.code] if answer.HasField("failure") else "OK"


async def state(client: Client) -> tuple[Any, ...]:
    """All that could have changed."""
    snapshot, events = await client.snapshot(), await client.events()
    leases = [(lease.lease_id, lease.fencing_token, lease.state) for lease in snapshot.leases]
    tickets = [(ticket.request_id, ticket.position) for ticket in snapshot.queue]
    return snapshot.revision, leases, tickets, [gpu.cordoned for gpu in snapshot.gpus], len(events)


async def occupied(client: Client) -> tuple[Acquiring, Acquiring, str]:
    """A lease and a ticket, so that there is something to break; the lease's id."""
    held = client.acquire(candidates=["gpu:0"], max_hold=0)
    lease = await held.granted()
    waiting = client.acquire(candidates=["gpu:0"], max_wait=3600)
    await waiting.waits_for("GPU_BUSY")
    return held, waiting, lease.lease_id


@pytest.mark.timeout(900)
async def test_messages_that_are_invalid_are_refused_and_change_nothing(
    arbiterd: Start, connect: Connect, capsys: pytest.CaptureFixture[str]
):
    arbiter = arbiterd(GPUS, "log_level=warning", "defaults.disconnect_grace=100ms")
    seed, began = random.randrange(2**32), time.monotonic()
    client, sender = connect(arbiter), Sender(arbiter.grpc)
    held, waiting, lease_id = await occupied(client)
    source, before = Source(seed, lease_id), await state(client)
    sent: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    sound: list[Nonsense] = []
    while sent.total() < MESSAGES:
        batch = source.make(BATCH)
        sound += [message for message in batch if message.sound]
        refused = await sender.statuses([message for message in batch if not message.sound])
        mistaken = [f"{message}: {code}" for message, code in refused if code != "INVALID_ARGUMENT"]
        assert not mistaken, f"seed {seed}\n" + "\n".join(mistaken)
        assert await state(client) == before, f"seed {seed}, after {sent.total()} messages"
        codes.update(code for _, code in refused)
        sent.update(_way(message) for message, _ in refused)
    took = time.monotonic() - began

    # What turned out sound is treated as such. What an operator may do, and what is no request but an order, is left.
    orders = {"Drain", "Resume", "Revoke", "UpdateConfig"}
    asked = [each for each in sound if METHODS[each.path].name not in orders]
    answers = await asyncio.gather(*(sender.one(message) for message in asked))
    odd = [f"{message}: {code}" for message, code in zip(asked, answers, strict=True) if code not in ORDERLY]
    assert not odd, f"seed {seed}\n" + "\n".join(odd)
    outcomes = dict(Counter(answers))
    held.cancel()
    waiting.cancel()
    with soak.figures(capsys):
        print(
            f"\n{sent.total()} invalid messages in {took:.0f} s (seed {seed}): {dict(sent)}; they came to {dict(codes)}"
            f" and changed nothing; {len(sound)} turned out sound, of which {len(asked)} came to {outcomes}"
        )
    for lease in (await client.snapshot()).leases:
        # Some are detached, and would live for long.
        await client.release(lease)
    await nothing_left(client)
    assert (await client.acquire().granted()).lease_id
    await sender.close()


def _way(message: Nonsense) -> str:
    if message.path == SESSION:
        return "session"
    return "stream" if METHODS[message.path].server_streaming else "unary"


async def test_connections_that_speak_no_http2_harm_nobody(arbiterd: Start, connect: Connect):
    arbiter, noise = arbiterd(GPUS), random.Random(random.randrange(2**32))
    client = connect(arbiter)
    held, waiting, _ = await occupied(client)
    before = await state(client)
    host, _, port = arbiter.grpc.rpartition(":")
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

    async def disturb(data: bytes) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(data)
        writer.write_eof()
        try:
            await asyncio.wait_for(reader.read(), 30)
        except ConnectionError:
            pass  # It was thrown out.
        finally:
            writer.close()

    for beginning in (b"", preface, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01"):
        await asyncio.gather(*(disturb(beginning + noise.randbytes(noise.randrange(1, 500))) for _ in range(25)))
    assert await state(client) == before
    held.cancel()
    waiting.cancel()
