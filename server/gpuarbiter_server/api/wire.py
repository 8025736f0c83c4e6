"""How bytes become requests: nothing that a client sends may make gRPC itself answer for us.

grpc.aio answers a deserializer that raises with UNKNOWN. These never raise; what cannot be decoded, or
is too large, arrives as an `Undecodable` that the handler answers with INVALID_ARGUMENT. Every message is
counted on its way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError, Message

from gpuarbiter_server.api.checks import check
from gpuarbiter_server.core.errors import ArbiterError, ErrorReason, Violation

LARGEST_MESSAGE = 256 * 1024


@dataclass(frozen=True, slots=True)
class Undecodable:
    """What arrived instead of a message, and what is wrong with it."""

    problem: str


# For a direction, "received" or "sent", and a type of message: what counts one of it.
Counting = Callable[[str, str], Callable[[], None]]


def decoder(kind: type[Message], counting: Counting) -> Callable[[bytes], Message | Undecodable]:
    """A deserializer that cannot raise."""
    count = _counter(kind, "received", counting)
    count_undecodable = counting("received", "undecodable")

    def decode(data: bytes) -> Message | Undecodable:
        if len(data) > LARGEST_MESSAGE:
            count_undecodable()
            return Undecodable(f"the message has {len(data)} bytes, at most {LARGEST_MESSAGE} are allowed")
        try:
            message = kind.FromString(data)
        except DecodeError:
            count_undecodable()
            return Undecodable(f"the message is no {kind.DESCRIPTOR.full_name}: its bytes cannot be decoded")
        count(message)
        return message

    return decode


def encoder(kind: type[Message], counting: Counting) -> Callable[[Message | bytes], bytes]:
    """A serializer; what is encoded already, of a type without variants, goes as it is."""
    count = _counter(kind, "sent", counting)

    def encode(message: Message | bytes) -> bytes:
        count(message)
        return message if isinstance(message, bytes) else message.SerializeToString()

    return encode


def _counter(kind: type[Message], direction: str, counting: Counting) -> Callable[[Any], None]:
    """What counts messages of a kind; those that wrap another one, by what is in them."""
    name = kind.DESCRIPTOR.name
    bare = counting(direction, name)
    for oneof in kind.DESCRIPTOR.oneofs:
        if all(field.message_type for field in oneof.fields):
            variants = {field.name: counting(direction, f"{name}.{field.name}") for field in oneof.fields}
            return lambda message: variants.get(message.WhichOneof(oneof.name), bare)()
    return lambda _message: bare()


def decoded(message: Message | Undecodable) -> Message:
    """A message; ArbiterError INVALID_REQUEST for what is none."""
    if isinstance(message, Undecodable):
        raise ArbiterError(ErrorReason.INVALID_REQUEST, message.problem, violations=(Violation("", message.problem),))
    return message


def checked(message: Message | Undecodable) -> Message:
    """A message that is within all limits; ArbiterError INVALID_REQUEST otherwise."""
    request = decoded(message)
    check(request)
    return request
