"""Runs a command under a lease, as flock runs one under a lock.

Waits for a GPU, sets CUDA_VISIBLE_DEVICES (and GPU_ARBITER_LEASE_ID, GPU_ARBITER_FENCING_TOKEN,
GPU_ARBITER_ADDRESS), runs the command, ends whatever it left running, and gives the GPU back.

Exit code: the command's (128 + signal when a signal ended it); 124 when no GPU could be had in time;
125 when gpu-arbiter itself failed or the lease was lost; 126 and 127 when the command cannot be run or
is not found.
"""

import argparse
import os
import queue
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gpuarbiter.cli import kinds
from gpuarbiter.cli.output import Messages
from gpuarbiter.cli.process import ProcessGroup
from gpuarbiter.cli.supervisor import Lost, Signalled, Supervisor
from gpuarbiter.cli.terminal import Terminal

if TYPE_CHECKING:
    from gpuarbiter import Arbiter, Lease, LeaseOptions, Queued

NO_GPU = 124
FAILURE = 125
CANNOT_EXECUTE = 126
NOT_FOUND = 127
END_SECONDS = 10.0
_FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--task", default="RUN", help="task type, which picks the policy (default: RUN)")
    parser.add_argument(
        "--gpu", action="append", metavar="KEY", help="key, index or UUID; may be repeated; default: any"
    )
    parser.add_argument("--count", type=int, default=1, help="how many GPUs, all together (default: 1)")
    parser.add_argument("--memory", type=kinds.size, help="peak memory on each GPU, such as 6GiB")
    parser.add_argument("--priority", type=int, help="0 to 100, higher first")
    parser.add_argument("--wait", type=kinds.duration, help="how long to wait, such as 10m; 0: not at all")
    parser.add_argument("--hold", type=kinds.duration, help="how long the command is meant to run, such as 2h")
    parser.add_argument("--shared", action="store_true", help="beside other shared leases")
    parser.add_argument("argv", nargs="+", metavar="COMMAND", help="the command and its arguments, after --")


class Interrupted(BaseException):
    """A signal came while nothing ran yet: the wait is over."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run(arguments: argparse.Namespace, messages: Messages) -> int:
    """Runs the command; returns the exit code."""
    command: list[str] = arguments.argv
    unusable = _unusable(command[0])
    if unusable is not None:
        code, why = unusable
        messages.error(f"{command[0]}: {why}")
        return code
    # Imported before signals are ours: an interrupted import would leave half a module.
    from gpuarbiter import Declined, WaitTimeout
    from gpuarbiter.cli.client import connect

    events: queue.SimpleQueue[object] = queue.SimpleQueue()
    try:
        with _signals(events) as ours, connect(arguments) as arbiter:
            return _under_lease(arbiter, arguments, messages, events, ours)
    except Interrupted as interrupted:
        messages.clear()
        return 128 + interrupted.number
    except (WaitTimeout, Declined) as error:
        messages.error(str(error), reason=error.reason)
        return NO_GPU


def _unusable(program: str) -> tuple[int, str] | None:
    """Why it cannot be run, known before anyone waits for a GPU."""
    if shutil.which(program):
        return None
    if os.sep in program and os.path.lexists(program):
        return CANNOT_EXECUTE, "cannot be executed"
    return NOT_FOUND, "command not found"


class _Signals:
    """While waiting, a signal ends the wait; once the command runs, signals are the command's."""

    def __init__(self, events: "queue.SimpleQueue[object]") -> None:
        self._events = events
        self.forward = False

    def handle(self, number: int, _frame: Any) -> None:
        if not self.forward:
            raise Interrupted(number)
        self._events.put(Signalled(number))


@contextmanager
def _signals(events: "queue.SimpleQueue[object]") -> Iterator[_Signals]:
    ours = _Signals(events)
    before = {}
    for name in _FORWARDED:
        number = getattr(signal, name, None)
        # What was ignored stays so, as under nohup.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, ours.handle)
    try:
        yield ours
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _under_lease(
    arbiter: "Arbiter",
    arguments: argparse.Namespace,
    messages: Messages,
    events: "queue.SimpleQueue[object]",
    ours: _Signals,
) -> int:
    from gpuarbiter import WorkReport

    options: LeaseOptions = {
        "memory": arguments.memory,
        "count": arguments.count,
        "gpus": arguments.gpu or (),
        "shared": True if arguments.shared else None,
        "priority": arguments.priority,
        "max_wait": arguments.wait,
        "max_hold": arguments.hold,
        "on_queued": lambda queued: _progress(messages, queued),
        "on_yield": lambda _lease, asked: events.put(asked),
        "on_lost": lambda lease: events.put(Lost(lease.lost_reason, lease.lost_detail)),
    }
    messages.progress("waiting for the arbiter")
    with arbiter.lease(arguments.task, **options) as lease:
        messages.clear()
        ours.forward = True
        started = time.monotonic()
        code, result = _run_command(arguments.argv, _environment(lease, arbiter.address), messages, events)
        lease.report(WorkReport(result=result, duration=time.monotonic() - started))
    return code


def _progress(messages: Messages, queued: "Queued") -> None:
    where = f"waiting for a GPU: {queued.position} of {queued.queue_length}, {queued.reason}"
    messages.progress(
        f"{where} ({queued.detail})" if queued.detail else where,
        position=queued.position,
        queue_length=queued.queue_length,
        reason=queued.reason,
    )


def _environment(lease: "Lease", address: str) -> dict[str, str]:
    devices = lease.visible_devices
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": devices,
        "GPU_ARBITER_LEASE_ID": lease.lease_id,
        "GPU_ARBITER_FENCING_TOKEN": str(lease.fencing_token),
        "GPU_ARBITER_ADDRESS": address,
    }
    if devices.replace(",", "").isdigit():  # indices are in PCI bus order, which is not CUDA's own
        environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    return environment


def _run_command(
    command: list[str], environment: dict[str, str], messages: Messages, events: "queue.SimpleQueue[object]"
) -> tuple[int, Any]:
    """Runs it to its end; the exit code, and how the work turned out."""
    with Terminal() as terminal:
        try:
            group = ProcessGroup(command, environment, events)
        except OSError as error:
            messages.error(f"{command[0]}: {error.strerror}")
            return (NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_EXECUTE), "FAILED"
        terminal.hand_to(group.pid)
        supervisor = Supervisor(group, messages, events)
        try:
            code = supervisor.follow(END_SECONDS)
        finally:
            if not group.end(END_SECONDS):
                messages.note("left", "some processes of the command could not be ended")
    if supervisor.lost:
        return FAILURE, "CANCELLED"
    # Ctrl-C on a terminal reaches the command without passing here.
    if supervisor.signalled or code in {128 + signal.SIGINT, 128 + signal.SIGTERM}:
        return code, "CANCELLED"
    return code, "OK" if code == 0 else "FAILED"
