"""Messages that are to be refused: made from the schema and the table of limits, from noise, and from sound ones.

What is made from a sound message can turn out sound again. The server's own check tells them apart here; that it is
right is for the tests of the limits to show.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from google.protobuf import message_factory

from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter_server.api.wire import Undecodable, checked, decoder
from gpuarbiter_server.core.errors import ArbiterError
from support.damage import METHODS, SESSION, SESSION_CALLS, Damage
from support.samples import wrong

# Shares of what is made: broken limits, noise, damage.
_KINDS = ("limits", "noise", "damage")
_WEIGHTS = (6, 2, 3)
_LONGEST_NOISE = 300


@dataclass(frozen=True)
class Nonsense:
    """One message for one method."""

    path: str
    data: bytes
    kind: str
    # It cannot be decoded: in a session, that ends it.
    undecodable: bool
    # It turned out to be a message like any other.
    sound: bool

    def __str__(self) -> str:
        return f"{self.path} {self.kind} {self.data.hex()}"


class Source:
    """The same messages for the same seed. Those that name a lease name this one, so that they could do harm."""

    def __init__(self, seed: int, lease_id: str) -> None:
        self._random = random.Random(seed)
        self._damage = Damage(seed)
        cases = [*_cases(lease_id)]
        self._random.shuffle(cases)
        self._cases = cycle(cases)
        # Equally often by each way: unary calls, streams, the session.
        streams = [path for path, method in METHODS.items() if method.server_streaming and path != SESSION]
        unary = [path for path, method in METHODS.items() if not method.server_streaming]
        self._ways = (unary, streams, [SESSION])

    def make(self, count: int) -> list[Nonsense]:
        """So many messages."""
        return [self._one() for _ in range(count)]

    def _one(self) -> Nonsense:
        (kind,) = self._random.choices(_KINDS, _WEIGHTS)
        if kind == "limits":
            path, data = next(self._cases)
            return Nonsense(path, data, kind, undecodable=False, sound=False)
        path = self._random.choice(self._random.choice(self._ways))
        if kind == "noise":
            data = self._random.randbytes(self._random.randrange(1, _LONGEST_NOISE))
        else:
            data = self._damage.session_call() if path == SESSION else self._damage.request(path)
        return _judged(path, data, kind)


def _uncounted(_direction: str, _kind: str) -> Callable[[], None]:
    return lambda: None


def _judged(path: str, data: bytes, kind: str) -> Nonsense:
    message = decoder(message_factory.GetMessageClass(METHODS[path].input_type), _uncounted)(data)
    undecodable, sound = isinstance(message, Undecodable), True
    try:
        checked(message)
    except ArbiterError:
        sound = False
    return Nonsense(path, data, kind, undecodable, sound)


def _cases(lease_id: str) -> Iterator[tuple[str, bytes]]:
    """Every way to break a limit, for each method and for each call of a session."""
    for path, method in METHODS.items():
        if path == SESSION:
            continue
        for case in wrong(method.input_type):
            yield path, _about(case.message, lease_id).SerializeToString()
    fields = pb.SessionRequest.DESCRIPTOR.fields_by_name
    for name in SESSION_CALLS:
        for case in wrong(fields[name].message_type):
            if (name, case.field) == ("acquire", "holder"):
                continue  # The session's stands in.
            request = pb.SessionRequest(call_id=2)
            getattr(request, name).CopyFrom(_about(case.message, lease_id))
            yield SESSION, request.SerializeToString()


def _about(message: Any, lease_id: str) -> Any:
    if "lease_id" in message.DESCRIPTOR.fields_by_name and message.lease_id == "x1":
        message.lease_id = lease_id
    return message
