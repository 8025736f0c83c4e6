"""The token that changes over HTTP need: given by the operator, or made once and kept beside the journal.

Law: it is in no message and no log line. Its file is read by its user alone, and by a group that cannot write it;
half a token is never in it.
"""

import contextlib
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from gpuarbiter_server.config.sources import ADMIN_TOKEN
from gpuarbiter_server.config.state import AUTO
from gpuarbiter_server.store.state_directory import JournalError, prepare, sync

NAME = "admin-token"
# Why there is none.
NO_PLACE = (
    "the journal is in memory, so that there is no place for an admin token; set auth.admin_token to a file with one, "
    f"or {ADMIN_TOKEN}"
)
_MOST_BYTES = 1024
# As RFC 6750 has it, section 2.1.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,512}=*")
_OTHERS = stat.S_IWGRP | stat.S_IRWXO


class TokenError(Exception):
    """There is no token to be had; the message says why and what to do."""


def find(said: str, directory: Path | None, environ: Mapping[str, str]) -> str | None:
    """The token in force; None where it has no place to be kept in.

    Args:
        said: the setting auth.admin_token: auto, or a file.
        directory: the state directory; None where there is none.
        environ: the environment; a token in it wins.

    Raises:
        TokenError: it cannot be read or made, or is none.
    """
    given = environ.get(ADMIN_TOKEN, "").strip()
    if given:
        return _checked(given, f"the environment variable {ADMIN_TOKEN}")
    try:
        if said != AUTO:
            return _read(Path(said))
        if directory is None:
            return None
        if not (directory / NAME).exists():
            _make(directory)
        return _read(directory / NAME)
    except JournalError as error:
        raise TokenError(str(error)) from error
    except OSError as error:
        where = said if said != AUTO else f"{directory}/{NAME}"
        message = (
            f"the admin token {where} cannot be read or made: {error.strerror}; set auth.admin_token to another file"
        )
        raise TokenError(message) from error


def _make(directory: Path) -> None:
    """Puts a new one there, unless somebody else is faster."""
    prepare(directory)
    handle, made = tempfile.mkstemp(prefix=f".{NAME}.", dir=directory)
    try:
        with open(handle, "w", encoding="ascii") as file:  # noqa: PTH123 -- of a handle
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(handle)
        with contextlib.suppress(FileExistsError):
            os.link(made, directory / NAME)
    finally:
        os.unlink(made)  # noqa: PTH108
    sync(directory)


def _read(path: Path) -> str:
    # A pipe that nobody writes to must not hold us up.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise TokenError(f"the admin token {path} is no file")
        if about.st_mode & _OTHERS:
            raise TokenError(
                f"the admin token {path} can be read or written by others: put a new one there, with chmod 600"
            )
        text = os.read(handle, _MOST_BYTES)
    finally:
        os.close(handle)
    return _checked(text.decode("latin-1").strip(), str(path))


def _checked(token: str, where: str) -> str:
    if not _TOKEN.fullmatch(token):
        wrong = "holds something else" if token else "is empty"
        allowed = "16 to 512 letters, digits and ._~+/-, as `openssl rand -hex 32` makes them"
        raise TokenError(f"{where} {wrong}; an admin token has {allowed}")
    return token
