"""What happens to a command under a lease, as its supervisor hears it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpuarbiter import YieldRequest


@dataclass(frozen=True, slots=True)
class Signalled:
    """A signal that is meant for the command; `ending`: one that may well end it."""

    number: int
    ending: bool = True


@dataclass(frozen=True, slots=True)
class StopRefused:
    """Somebody wanted to stop gpu-arbiter itself."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The arbiter asks for the GPU."""

    request: "YieldRequest"


@dataclass(frozen=True, slots=True)
class Lost:
    """The lease is lost."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Ready:
    """It is ready after so many seconds, and the GPU is shared, or why it is not."""

    seconds: float
    committed_bytes: int
    refused: str = ""


@dataclass(frozen=True, slots=True)
class NotReady:
    """It was not ready in time."""

    seconds: float
    problem: str
