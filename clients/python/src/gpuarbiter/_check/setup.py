"""What an arbiter says of itself and of its GPUs, and whether leases work from here.

Law: one line for each thing, and whatever is not right says what to do. What cannot be looked at, because something
before it failed, is left out.
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from gpuarbiter import Arbiter
from gpuarbiter._check import pids
from gpuarbiter._check.lines import Line, Status
from gpuarbiter._check.reach import Reach
from gpuarbiter._check.trial import TASK, milliseconds
from gpuarbiter._convert import enum_name
from gpuarbiter._errors import ArbiterError, ArbiterUnavailable, NotPermitted, Unauthenticated
from gpuarbiter._units import format_duration
from gpuarbiter._version import __version__
from gpuarbiter.v1 import snapshot_pb2

PROTOCOL = "an arbiter answers"
CREDENTIALS = "credentials"
VERSION = "version"
CLOCK = "clock"
JOURNAL = "journal"
NVML = "NVML"
GPUS = "GPUs"
# Logs and events of two machines are compared by people; a second is what they see.
_CLOCK_SECONDS = 1.0
_SIMULATED = "Simulated GPU"


class Setup:
    """The lines of a set-up; `connect` makes a client by its id."""

    def __init__(self, address: str | None, connect: Callable[[str], Arbiter]) -> None:
        self._address = address
        self._connect = connect

    def lines(self) -> Iterator[Line]:
        """Every line that can be had."""
        reach = Reach(self._address)
        yield from reach.lines()
        if reach.target is None:
            return
        with self._connect(f"{TASK}-1") as arbiter:
            asked, started = datetime.now(UTC), time.monotonic()
            try:
                snapshot = arbiter.snapshot()
            except ArbiterError as error:
                yield _refused(error)
                return
            took = timedelta(seconds=time.monotonic() - started)
            yield Line(PROTOCOL, Status.PASS, f"{snapshot.node or 'it'}, within {milliseconds(took.total_seconds())}")
            yield _credentials(arbiter)
            yield _version(snapshot)
            yield _clock(snapshot, asked, took)
            yield _journal(snapshot)
            yield from _gpus(snapshot)
        yield from pids.lines(reach.target, self._connect)


def _refused(error: ArbiterError) -> Line:
    said = f"{error} [{error.reason or error.code}]"
    if isinstance(error, Unauthenticated):
        return Line(CREDENTIALS, Status.FAIL, said, "give a valid token: --token or GPU_ARBITER_TOKEN")
    if isinstance(error, NotPermitted):
        return Line(CREDENTIALS, Status.FAIL, said, "ask whoever runs it, or the proxy before it, for access")
    if isinstance(error, ArbiterUnavailable):
        todo = "look at what listens there: it does not speak gRPC, or it wants TLS, or it is stopping"
        return Line(PROTOCOL, Status.FAIL, said, todo)
    return Line(PROTOCOL, Status.FAIL, said, "look at what listens there: another service, or another version")


def _credentials(arbiter: Arbiter) -> Line:
    try:
        for _ in arbiter.admin.events(limit=1):
            break
    except NotPermitted:
        return Line(CREDENTIALS, Status.PASS, "a client's (drain, resume, revoke and events need the admin role)")
    except ArbiterError as error:
        todo = "look at the log of gpu-arbiterd"
        return Line(CREDENTIALS, Status.WARN, f"a client's; as an operator: {error}", todo)
    return Line(CREDENTIALS, Status.PASS, "a client's and an operator's")


def _version(snapshot: snapshot_pb2.ArbiterSnapshot) -> Line:
    if snapshot.version == __version__:
        return Line(VERSION, Status.PASS, f"{__version__} on both sides")
    found = f"{snapshot.version or 'unknown'} there, {__version__} here"
    return Line(VERSION, Status.WARN, found, "install the same version on both sides")


def _clock(snapshot: snapshot_pb2.ArbiterSnapshot, asked: datetime, took: timedelta) -> Line:
    """It was between the question and its answer; what is outside of that is the difference of the clocks."""
    theirs = snapshot.snapshot_time.ToDatetime(tzinfo=UTC)
    ahead = max(timedelta(0), theirs - asked - took) or min(timedelta(0), theirs - asked)
    if abs(ahead.total_seconds()) < _CLOCK_SECONDS:
        return Line(CLOCK, Status.PASS, "the same on both sides")
    which = "ahead of" if ahead > timedelta(0) else "behind"
    found = f"the arbiter's is {format_duration(abs(ahead))} {which} this one"
    todo = (
        "set both by NTP (timedatectl): leases go by durations and are right, but the times of logs and events are not"
    )
    return Line(CLOCK, Status.WARN, found, todo)


def _journal(snapshot: snapshot_pb2.ArbiterSnapshot) -> Line:
    if snapshot.draining:
        return Line(JOURNAL, Status.WARN, "the arbiter is stopping", "ask again once it is started")
    if snapshot.recovering:
        todo = "wait for its recovery grace; what those leases block waits, the rest is granted"
        return Line(JOURNAL, Status.WARN, f"start {snapshot.epoch}: it waits for holders of before", todo)
    return Line(JOURNAL, Status.PASS, f"start {snapshot.epoch}, nothing left to recover")


def _gpus(snapshot: snapshot_pb2.ArbiterSnapshot) -> Iterator[Line]:
    if snapshot.nvml_up:
        yield Line(NVML, Status.PASS, "answers")
    elif snapshot.gpus and all(gpu.name == _SIMULATED for gpu in snapshot.gpus):
        yield Line(NVML, Status.PASS, "not needed: the GPUs are simulated")
    else:
        todo = (
            "install the driver, or give the arbiter's container libnvidia-ml.so.1 (NVIDIA container toolkit), and "
            "start it again; without it memory goes by declarations alone"
        )
        yield Line(NVML, Status.WARN, "does not answer", todo)
    if not snapshot.gpus:
        todo = "look at `nvidia-smi -L` on the arbiter's machine, or name them in its configuration (gpus)"
        yield Line(GPUS, Status.FAIL, "the arbiter has none", todo)
    for gpu in snapshot.gpus:
        yield _gpu(gpu)


def _gpu(gpu: snapshot_pb2.GpuSnapshot) -> Line:
    check = f"GPU {gpu.key}"
    found = f"{gpu.name or gpu.uuid or 'no name'}: {enum_name(snapshot_pb2.GpuHealth, gpu.health) or 'unknown'}"
    if gpu.health == snapshot_pb2.GPU_HEALTH_LOST:
        return Line(check, Status.FAIL, found, "look at nvidia-smi and dmesg (Xid); a reset or a reboot may be needed")
    if gpu.health == snapshot_pb2.GPU_HEALTH_STALE:
        return Line(check, Status.WARN, found, "look at nvidia-smi: the driver answers late or not at all")
    if gpu.cordoned:
        todo = f"gpu-arbiter resume --gpu {gpu.key}, once whoever drained it is done"
        return Line(check, Status.WARN, f"{found}, cordoned: it is granted to nobody", todo)
    return Line(check, Status.PASS, f"{found}, leases: {len(gpu.lease_ids)}, waiting: {gpu.queue_length}")
