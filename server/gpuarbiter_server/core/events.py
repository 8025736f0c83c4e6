"""What can happen to the arbiter. Each event is handled whole, at a time that comes with it.

A `call` names whoever waits for the answer: the runtime hands one out for each RPC (and for each
call inside a Session), and effects come back under it.
"""

from dataclasses import dataclass

from gpuarbiter_server.core.model import (
    AcquireRequest,
    GpuReading,
    Holder,
    ProcessId,
    Sharing,
    WorkContext,
    WorkReport,
)
from gpuarbiter_server.core.policy import Settings
from gpuarbiter_server.core.records import Saved

Call = int


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call, as far as the transport proves it."""

    principal: str = "local"
    admin: bool = True
    # The session's holder; empty for a unary call, whose client id is not known.
    client_id: str = ""


# -- from clients --


@dataclass(frozen=True, slots=True)
class Acquire:
    """A stream asks for a lease, or joins the one that is there."""

    call: Call
    request: AcquireRequest


@dataclass(frozen=True, slots=True)
class StreamClosed:
    """The stream of an Acquire is gone before it had its last answer.

    delivered: whether a Granted had been written to it; otherwise the grant is taken back.
    """

    call: Call
    delivered: bool


@dataclass(frozen=True, slots=True)
class Release:
    """Ends a lease or takes a waiting request back; exactly one of the two names is set."""

    call: Call
    caller: Caller
    lease_id: str = ""
    request_id: str = ""
    fencing_token: int = 0
    report: WorkReport | None = None


@dataclass(frozen=True, slots=True)
class CancelStream:
    """Takes back the acquire that runs under another call of the same session."""

    call: Call
    acquire: Call


@dataclass(frozen=True, slots=True)
class Renew:
    """The holder is alive. extend_hold: None leaves the hold as it is."""

    call: Call
    caller: Caller
    lease_id: str
    fencing_token: int = 0
    extend_hold: float | None = None


@dataclass(frozen=True, slots=True)
class Resize:
    """Changes what a lease has committed. None and UNSPECIFIED leave it as it is."""

    call: Call
    caller: Caller
    lease_id: str
    fencing_token: int = 0
    memory_bytes: int | None = None
    sharing: Sharing = Sharing.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class CheckFence:
    """Asks whether a live lease on a GPU has this token."""

    call: Call
    gpu: str
    fencing_token: int


@dataclass(frozen=True, slots=True)
class ReportWork:
    """Tells of work that had no lease."""

    call: Call
    task_type: str
    holder: Holder
    report: WorkReport
    context: WorkContext


# -- from operators --


@dataclass(frozen=True, slots=True)
class Drain:
    """Cordons GPUs; with a grace, their holders are asked to yield and then revoked."""

    call: Call
    gpus: tuple[str, ...]
    everything: bool
    reason: str = ""
    grace: float | None = None


@dataclass(frozen=True, slots=True)
class Resume:
    """Takes a drain back."""

    call: Call
    gpus: tuple[str, ...]
    everything: bool


@dataclass(frozen=True, slots=True)
class Revoke:
    """Asks a holder to yield and ends the lease when the grace (0: at once) is over."""

    call: Call
    lease_id: str
    grace: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Configure:
    """New settings are in force. Leases and waiting requests keep what they have."""

    settings: Settings
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Shutdown:
    """No new requests, waiting ones end; leases go on until the process stops."""


# -- from the analysis --


@dataclass(frozen=True, slots=True)
class AskToYield:
    """The GPUs of a lease do no work: its holder is asked to yield, and nothing ends the lease if it does not.

    if_awaited: only while a request waits that could have one of them.
    """

    call: Call
    lease_id: str
    detail: str = ""
    if_awaited: bool = False


# -- from the machine --


@dataclass(frozen=True, slots=True)
class ReadingTaken:
    """A sampler read a GPU; a lost one is back with it."""

    gpu: str
    reading: GpuReading


@dataclass(frozen=True, slots=True)
class GpuFailed:
    """The driver says that a GPU is lost, or is gone itself."""

    gpu: str
    detail: str


@dataclass(frozen=True, slots=True)
class DriverChanged:
    """NVML answers, or does not any more."""

    up: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class DescendantsSeen:
    """All descendants of a watched process that live now."""

    holder: ProcessId
    descendants: tuple[ProcessId, ...]


@dataclass(frozen=True, slots=True)
class ProcessExited:
    """A watched process is gone, by the kernel's word."""

    process: ProcessId


# -- from the journal --


@dataclass(frozen=True, slots=True)
class Recover:
    """What an earlier start left; the first event of all, if it comes.

    same_boot: the machine was not started again since; otherwise every holder is dead. same_pids: pids mean
    the same here as there; otherwise nothing is known of the holders' processes.
    """

    saved: Saved
    same_boot: bool = True
    same_pids: bool = True


@dataclass(frozen=True, slots=True)
class JournalWritten:
    """All changes up to this number are durable."""

    number: int


@dataclass(frozen=True, slots=True)
class JournalFailed:
    """What has been saved since the last JournalWritten is not durable, and nothing can be for now."""

    detail: str


@dataclass(frozen=True, slots=True)
class JournalRetried:
    """The journal may take writing again: the core is to save everything anew."""


# -- from time --


@dataclass(frozen=True, slots=True)
class Tick:
    """Nothing happened, but time may have passed a deadline."""


Event = (
    Acquire
    | StreamClosed
    | Release
    | CancelStream
    | Renew
    | Resize
    | CheckFence
    | ReportWork
    | Drain
    | Resume
    | Revoke
    | Configure
    | Shutdown
    | AskToYield
    | ReadingTaken
    | GpuFailed
    | DriverChanged
    | DescendantsSeen
    | ProcessExited
    | Recover
    | JournalWritten
    | JournalFailed
    | JournalRetried
    | Tick
)
