"""The directory that an arbiter keeps its state in: made, checked, and used by one arbiter at a time.

Law: nothing in it is read or written before the lock is held, and nobody else can put files there.
"""

import os
import stat
from pathlib import Path

LOCK_NAME = "lock"
_MAX_PID_BYTES = 16


class JournalError(Exception):
    """The journal cannot be used; the message says why and what to do."""


def take(directory: Path) -> int:
    """Makes the directory ready; returns the lock on it, which lasts until it is closed.

    Raises:
        JournalError: another arbiter uses it, or it cannot be used.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check(directory)
        lock = os.open(directory / LOCK_NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise JournalError(f"the state directory {directory} cannot be used: {error}; {_ANOTHER}") from error
    try:
        _lock(lock, directory)
    except BaseException:
        os.close(lock)
        raise
    return lock


_ANOTHER = "set journal.path to a directory of this user's own"


def _check(directory: Path) -> None:
    """A directory in which another user can put files is no place for a journal: he could put his own there."""
    about = directory.stat()
    if about.st_uid not in (0, os.geteuid()) or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        message = f"the state directory {directory} belongs to another user or can be written by others; {_ANOTHER}"
        raise JournalError(message)


def _lock(lock: int, directory: Path) -> None:
    import fcntl  # Windows has none.

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        # Its number is there for people; between its lock and its number there may be none.
        holder = os.pread(lock, _MAX_PID_BYTES, 0).decode(errors="replace").strip() or "unknown"
        message = f"another arbiter (pid {holder}) uses the state directory {directory}"
        raise JournalError(f"{message}; give this one a directory of its own with journal.path") from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
