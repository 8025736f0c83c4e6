"""Messages that were right once, and have been damaged since."""

import random

from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from support.samples import SERVICES, right

METHODS = {f"/{service.full_name}/{method.name}": method for service in SERVICES.values() for method in service.methods}
SESSION = "/gpuarbiter.v1.GpuArbiter/Session"
SESSION_CALLS = [field.name for field in pb.SessionRequest.DESCRIPTOR.oneofs_by_name["call"].fields]


class Damage:
    """Messages that were right once; the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._pool = [right(method.input_type).SerializeToString() for method in METHODS.values()]
        for name in SESSION_CALLS:
            message = right(pb.SessionRequest.DESCRIPTOR, name)
            message.call_id = 2
            self._pool.append(message.SerializeToString())

    def session_call(self) -> bytes:
        """One for a session."""
        return self.hurt(self._pool[self._random.randrange(len(METHODS), len(self._pool))])

    def request(self, path: str) -> bytes:
        """One for a method; now and then of another method's type."""
        index = list(METHODS).index(path) if self._random.random() < 0.9 else self._random.randrange(len(METHODS))
        return self.hurt(self._pool[index])

    def hurt(self, data: bytes) -> bytes:
        """A few wounds."""
        for _ in range(self._random.randint(1, 4)):
            data = self._random.choice((self._flip, self._cut, self._put, self._swap, self._double, self._count))(data)
        return data

    def _place(self, data: bytes) -> int:
        return self._random.randrange(len(data) + 1)

    def _flip(self, data: bytes) -> bytes:
        if not data:
            return data
        at = self._random.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << self._random.randrange(8)]) + data[at + 1 :]

    def _cut(self, data: bytes) -> bytes:
        return data[: self._place(data)]

    def _put(self, data: bytes) -> bytes:
        at = self._place(data)
        return data[:at] + self._random.randbytes(self._random.randint(1, 12)) + data[at:]

    def _swap(self, data: bytes) -> bytes:
        first, second = sorted((self._place(data), self._place(data)))
        return data[second:] + data[first:second] + data[:first]

    def _count(self, data: bytes) -> bytes:
        """Some field is an extreme number."""
        value = self._random.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1))
        number = bytearray([self._random.randint(1, 15) << 3])
        while value > 0x7F:
            number.append(value & 0x7F | 0x80)
            value >>= 7
        return data + bytes(number) + bytes([value])

    def _double(self, data: bytes) -> bytes:
        return data + data[self._place(data) :]
