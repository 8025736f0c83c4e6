"""Who asks: the Holder message of this process.

Law: what the system does not tell is left out, never guessed; nothing here raises.
"""

import functools
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from gpuarbiter import _address, _attestation
from gpuarbiter.v1 import lease_pb2

MAX_CLIENT_ID = 128
# Field 22 of /proc/PID/stat, counted from the third: the second, the name, may itself hold spaces.
_START_TICKS = 22 - 3


class _Other(NamedTuple):
    """Another process, and how it attests itself."""

    pid: int
    attest: Callable[[Path], str]


# Who holds the leases of this process, where that is not this process.
_other: _Other | None = None


@contextmanager
def held_by(pid: int, attest: Callable[[Path], str]) -> Iterator[None]:
    """Meanwhile the leases of this process are another one's, of the same PID namespace: they live as long as that one.

    attest: what that process, not this one, reads from an attestation socket.
    """
    global _other  # noqa: PLW0603 -- a process has one identity
    before, _other = _other, _Other(pid, attest)
    try:
        yield
    finally:
        _other = before


def holder(client_id: str | None = None, *, attestation: str = "") -> lease_pb2.Holder:
    """Who holds for this process, itself as a rule, under `client_id` or a name made of program, host and pid."""
    message = lease_pb2.Holder()
    message.CopyFrom(_process(_other.pid if _other else os.getpid()))
    message.client_id = client_id or default_client_id()
    message.attestation = attestation
    return message


def default_client_id() -> str:
    """A name such as "train-node7-4711": unique while the process lives, at most 128 characters."""
    program = Path(sys.argv[0]).stem if sys.argv and sys.argv[0] not in {"", "-c", "-m"} else "python"
    if program == "__main__":  # python -m package
        program = Path(sys.argv[0]).parent.name
    tail = f"-{socket.gethostname()}-{os.getpid()}"
    return (program[: max(1, MAX_CLIENT_ID - len(tail))] + tail)[-MAX_CLIENT_ID:]


@functools.lru_cache(maxsize=1)
def _process(pid: int) -> lease_pb2.Holder:
    # By pid, so that a forked child is not taken for its parent.
    return lease_pb2.Holder(
        pid=pid,
        pid_namespace=_pid_namespace(),
        process_start_ticks=start_ticks(pid),
        namespace=os.environ.get("POD_NAMESPACE", ""),
        pod=os.environ.get("POD_NAME", ""),
        container=os.environ.get("CONTAINER_NAME", ""),
    )


def _pid_namespace() -> int:
    try:
        link = str(Path("/proc/self/ns/pid").readlink())  # such as "pid:[4026531836]"
    except OSError:
        return 0
    match = re.search(r"\[(\d+)\]", link)
    return int(match[1]) if match else 0


def start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 when that cannot be known (or it is gone)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        return int(stat.rpartition(b")")[2].split()[_START_TICKS])
    except (OSError, ValueError, IndexError):
        return 0


def attestation_socket(target: str) -> Path | None:
    """The attestation socket beside the arbiter's Unix socket, where there is one."""
    path = _address.socket_path(target)
    if path is None:
        return None
    beside = path.with_name(path.name + ".attest")
    return beside if beside.exists() else None


def read_attestation(path: Path) -> str:
    """What the attestation socket gives the holder: one line. Empty when it does not, within a second."""
    return _other.attest(path) if _other else _attestation.read_attestation(path)
