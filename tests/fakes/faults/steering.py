"""What goes wrong below a process, told to it through a memory-mapped file while it runs.

The file is a C struct that the library maps as well, so that a change takes effect with the next call, and what the
process left there is still to be read after its death.
"""

import ctypes
import errno
import mmap
import os
import time
import uuid
from pathlib import Path
from typing import Any

from fakes.faults.library import library

BEFORE, WITHIN, AFTER = "before", "within", "after"
_CALLS = {"write": 1, "sync": 2, "send": 3}
_MOMENTS = {BEFORE: 1, WITHIN: 2, AFTER: 3}
_TEXT = 256
_UNTIL_TOLD = -1
_NANOSECONDS = 1_000_000_000
_UP_NS = 60 * _NANOSECONDS


class _Control(ctypes.Structure):
    """As `Control` in faults.c."""

    _fields_ = (
        ("size", ctypes.c_int64),
        # The disk's faults are those of files whose path contains this.
        ("disk", ctypes.c_char * _TEXT),
        # errno of every write (a change of size is one) and sync; 0: they succeed.
        ("write_error", ctypes.c_int64),
        ("sync_error", ctypes.c_int64),
        # How much longer every sync takes; negative: until this changes.
        ("sync_delay_ms", ctypes.c_int64),
        # The process dies at the kill_count-th call of this kind, for a file whose path ends with this.
        ("kill_path", ctypes.c_char * _TEXT),
        ("kill_call", ctypes.c_int64),
        ("kill_when", ctypes.c_int64),
        ("kill_count", ctypes.c_int64),
        ("wall_offset_ns", ctypes.c_int64),
        ("boot_offset_ns", ctypes.c_int64),
        ("redirect_from", ctypes.c_char * _TEXT),
        ("redirect_to", ctypes.c_char * _TEXT),
        # What the process tells: calls of the planned kind so far, when it died of it (monotonic), calls that were
        # made to fail, syncs that hang now, waits until a time of the wall clock.
        ("seen", ctypes.c_int64),
        ("killed_at_ns", ctypes.c_int64),
        ("failed", ctypes.c_int64),
        ("syncing", ctypes.c_int64),
        ("wall_waits", ctypes.c_int64),
    )


class Faults:
    """The faults of one process at a time; a process that is started after another's death goes on with them."""

    def __init__(self, folder: Path) -> None:
        self._library = library()
        self._path = folder / "faults-control"
        self._path.write_bytes(bytes(ctypes.sizeof(_Control)))
        with self._path.open("r+b") as file:
            # Kept by what is made of it.
            self._control: Any = _Control.from_buffer(mmap.mmap(file.fileno(), 0))
        self._control.size = ctypes.sizeof(_Control)
        self._boot_id = folder / "faults-boot-id"

    @property
    def env(self) -> dict[str, str]:
        """What a process needs in its environment, when it starts, to meet these faults."""
        preloaded = filter(None, (str(self._library), os.environ.get("LD_PRELOAD", "")))
        return {"LD_PRELOAD": ":".join(preloaded), "FAULTS_CONTROL": str(self._path)}

    # -- the disk; each lasts until `heal` --

    def disk_full(self, path: str) -> None:
        """Writes to files whose path contains this find no space."""
        self._control.disk = path.encode()
        self._control.write_error = errno.ENOSPC

    def syncs_fail(self, path: str) -> None:
        """Syncs of files whose path contains this fail with EIO."""
        self._control.disk = path.encode()
        self._control.sync_error = errno.EIO

    def syncs_hang(self, path: str, seconds: float | None = None) -> None:
        """Syncs of files whose path contains this take so much longer; without a figure, until `heal`."""
        self._control.disk = path.encode()
        self._control.sync_delay_ms = _UNTIL_TOLD if seconds is None else round(seconds * 1000)

    def heal(self) -> None:
        """The disk is well; syncs that hang return."""
        self._control.write_error = self._control.sync_error = self._control.sync_delay_ms = 0

    @property
    def failed(self) -> int:
        """Calls for the disk that were made to fail so far."""
        return int(self._control.failed)

    @property
    def syncing(self) -> int:
        """Syncs that hang now."""
        return int(self._control.syncing)

    # -- SIGKILL at a planned call --

    def kill(self, call: str, when: str, count: int = 1, *, path: str = "") -> None:
        """SIGKILL at the count-th call from now on: "write" or "sync" of files whose path ends so, or "send".

        A send is one on a TCP or Unix connection. Killed "within", a write or send has done its first half.
        """
        self.disarm()
        control = self._control
        control.seen = control.killed_at_ns = 0
        control.kill_path, control.kill_when, control.kill_count = path.encode(), _MOMENTS[when], count
        control.kill_call = _CALLS[call]

    def disarm(self) -> None:
        """No call is planned to be the last any more."""
        self._control.kill_call = 0

    @property
    def seen(self) -> int:
        """Calls of the planned kind since `kill`."""
        return int(self._control.seen)

    @property
    def killed_at(self) -> float | None:
        """When a process died of its planned call, by the monotonic clock; None: none did since `kill`."""
        told = int(self._control.killed_at_ns)
        return told / _NANOSECONDS if told else None

    # -- what the process is told --

    @property
    def wall_offset(self) -> float:
        """Seconds by which the wall clock is ahead of the machine's."""
        return float(self._control.wall_offset_ns) / _NANOSECONDS

    @wall_offset.setter
    def wall_offset(self, seconds: float) -> None:
        self._control.wall_offset_ns = round(seconds * _NANOSECONDS)

    @property
    def wall_waits(self) -> int:
        """How often it waited until a time of the wall clock: such a wait does not see the offset, so none may be."""
        return int(self._control.wall_waits)

    def reboot(self) -> None:
        """For processes that start from now on, the machine was started again a minute ago."""
        self._boot_id.write_text(f"{uuid.uuid4()}\n")
        self.redirect("/proc/sys/kernel/random/boot_id", self._boot_id)
        self._control.boot_offset_ns = _UP_NS - time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def redirect(self, path: str, to: Path) -> None:
        """Who opens this very path gets the other file."""
        self._control.redirect_to = str(to).encode()
        self._control.redirect_from = path.encode()
