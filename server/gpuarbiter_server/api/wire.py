"""How bytes become requests: nothing that a client sends may make gRPC itself answer for us.

grpc.aio answers a deserializer that raises with UNKNOWN. These never raise; what cannot be decoded, or
is too large, arrives as an `Undecodable` that the handler answers with INVALID_ARGUMENT.
"""

from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.message import DecodeError, Message

from gpuarbiter_server.api.checks import check
from gpuarbiter_server.core.errors import ArbiterError, ErrorReason, Violation

LARGEST_MESSAGE = 256 * 1024


@dataclass(frozen=True, slots=True)
class Undecodable:
    """What arrived instead of a message, and what is wrong with it."""

    problem: str


def decoder(kind: type[Message]) -> Callable[[bytes], Message | Undecodable]:
    """A deserializer that cannot raise."""

    def decode(data: bytes) -> Message | Undecodable:
        if len(data) > LARGEST_MESSAGE:
            return Undecodable(f"the message has {len(data)} bytes, at most {LARGEST_MESSAGE} are allowed")
        try:
            return kind.FromString(data)
        except DecodeError:
            return Undecodable(f"the message is no {kind.DESCRIPTOR.full_name}: its bytes cannot be decoded")

    return decode


def encode(message: Message | bytes) -> bytes:
    """A serializer; what is encoded already goes as it is."""
    return message if isinstance(message, bytes) else message.SerializeToString()


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
