"""The directory that an arbiter keeps its state in: made, checked, and used by one arbiter at a time.

Law: nothing in it is read or written before the lock is held, and nobody else can put files there.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

LOCK_NAME = "lock"
_MAX_PID_BYTES = 16


class JournalError(Exception):
    """The journal cannot be used; the message says why and what to do."""


_ANOTHER = "set journal.path to a directory of this user's own"


def take(directory: Path) -> int:
    """Makes the directory ready; returns the lock on it, which lasts until it is closed.

    Raises:
        JournalError: another arbiter uses it, or it cannot be used.
    """
    try:
        prepare(directory)
        lock = os.open(directory / LOCK_NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            _lock(lock, directory)
        except BaseException:
            os.close(lock)
            raise
    except OSError as error:
        raise JournalError(f"the state directory {directory} cannot be used: {error}; {_ANOTHER}") from error
    return lock


def prepare(directory: Path) -> None:
    """Makes it where it is missing, and sees that nobody else can put files there.

    Raises:
        JournalError: somebody else can.
        OSError: it cannot be made.
    """
    missing = [each for each in (directory, *directory.parents) if not each.exists()]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for made in missing:
        sync(made.parent)
    _check(directory)


def sync(directory: Path) -> None:
    """Makes the names in it durable: a file that is synced can still lose its name."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
        # Between its lock and its number there may be none yet.
        holder = os.pread(lock, _MAX_PID_BYTES, 0).decode(errors="replace").strip() or "unknown"
        message = f"another arbiter (pid {holder}) uses the state directory {directory}"
        raise JournalError(f"{message}; give this one a directory of its own with journal.path") from error
    # For people alone: a disk that is full keeps nobody from starting.
    with suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
