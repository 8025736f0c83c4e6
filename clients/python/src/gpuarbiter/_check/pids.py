"""Whether leases are granted from here, and whether the arbiter sees who holds them.

Law: proved, not guessed: a process that holds a small shared lease is killed, and the arbiter is to end the lease for
that. The lease is of the task type gpu-arbiter-check, and is there for a moment only.
"""

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

from gpuarbiter import Arbiter, Lease, _holder
from gpuarbiter._check.lines import Line, Status
from gpuarbiter._check.trial import BUSY, MEMORY, TASK, WAIT_SECONDS, milliseconds
from gpuarbiter._errors import ArbiterError, JournalUnavailable
from gpuarbiter._guard.command import Guarded

GRANT = "a lease is granted"
PIDS = "pids"
# The arbiter hears of a death at once; this is for a machine under load.
_DEATH_SECONDS = 3.0
_TTL = timedelta(seconds=30)


def lines(target: str, connect: Callable[[str], Arbiter]) -> Iterator[Line]:
    """The grant, and who holds it."""
    if os.name != "posix":  # pragma: no cover -- Windows
        yield Line(PIDS, Status.SKIP, "not on this system: a holder is alive as long as its connection")
        return
    with Guarded(queue.SimpleQueue()) as guarded:
        try:
            yield from _held_by(guarded, target, connect)
        except BUSY as busy:
            yield Line(GRANT, Status.SKIP, f"others use the GPUs: {busy}")
        except JournalUnavailable as error:
            todo = "look at the log of gpu-arbiterd, and at the space and permissions of its journal.path"
            yield Line(GRANT, Status.FAIL, f"{error} [{error.reason}]", todo)
        except ArbiterError as error:
            reason = error.reason or error.code
            yield Line(GRANT, Status.FAIL, f"{error} [{reason}]", f"docs/troubleshooting.md says more of {reason}")


def _held_by(guarded: Guarded, target: str, connect: Callable[[str], Arbiter]) -> Iterator[Line]:
    lost = threading.Event()
    started = time.monotonic()
    with (
        _holder.held_by(guarded.guard_pid or 0, guarded.attest),
        connect(f"{TASK}-2") as arbiter,
        arbiter.lease(
            TASK,
            shared=True,
            memory=MEMORY,
            busy_policy="WAIT",
            max_wait=WAIT_SECONDS,
            ttl=_TTL,
            on_lost=lambda _lease: lost.set(),
        ) as lease,
    ):
        took = milliseconds(time.monotonic() - started)
        yield Line(GRANT, Status.PASS, f"on {lease.gpus[0].key}, within {took}")
        os.kill(guarded.guard_pid or 0, signal.SIGKILL)
        lost.wait(_DEATH_SECONDS)
        yield _seen(lease, _holder.attestation_socket(target))


def _seen(lease: Lease, attested: Path | None) -> Line:
    if lease.lost_reason == "HOLDER_DIED":
        how = "by the attestation socket" if attested else "by /proc"
        return Line(PIDS, Status.PASS, f"the arbiter saw the holder die (it knows it {how})")
    todo = (
        "connect over the arbiter's Unix socket, which attests pids across PID namespaces, or let both share one "
        "(hostPID); until then memory goes by declarations, and a dead holder is noticed by its connection only"
    )
    return Line(PIDS, Status.WARN, "the arbiter did not see the holder die: it cannot see the processes here", todo)
