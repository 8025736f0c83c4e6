"""Unix sockets as files: who owns a path, and what to do about one that a crashed arbiter left behind.

Law: a path is taken over only once it is sure that nobody serves there, and nothing but a socket is
ever removed.
"""

import os
import socket
import stat
from pathlib import Path


def claim(path: Path) -> int:
    """Makes a path free for a socket of ours; returns the lock beside it, which lasts until it is closed.

    Raises:
        OSError: somebody serves there already, or the path cannot be used.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_folder(path.parent)
    lock = os.open(path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        _take(lock, path)
        remove_leftover(path)
    except OSError:
        os.close(lock)
        raise
    return lock


def _check_folder(folder: Path) -> None:
    """A folder in which another user can put files is no place for a socket: he could put his own there."""
    about = folder.stat()
    sticky = about.st_mode & stat.S_ISVTX
    if about.st_uid not in (0, os.geteuid()) or (about.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky):
        message = f"{folder} belongs to another user or can be written by others; choose a folder of your own"
        raise PermissionError(message)


def _take(lock: int, path: Path) -> None:
    import fcntl  # Windows has none, and no Unix sockets to lock either.

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        message = f"another arbiter holds {path}"
        raise OSError(message) from error


def remove_leftover(path: Path) -> None:
    """Removes a socket that nobody answers at.

    Raises:
        OSError: somebody does, or it is no socket.
    """
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        message = f"{path} is there and is no socket"
        raise FileExistsError(message)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # its backlog is full: somebody is there, and busy
    message = f"somebody answers at {path} already: is another arbiter running?"
    raise OSError(message)
