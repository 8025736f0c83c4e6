"""The journal as a file: made whole or not at all, and opened for reading or for writing.

Law: what only looks at a journal leaves it as it is, damaged or not. A connection that may write checkpoints
when it is closed, and so mixes a damaged write-ahead log into the main file: it is opened only after one that
may not write has found everything in order.
"""

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from gpuarbiter_server.store.journal_schema import META, META_ROW, SCHEMA, VERSION, Meta
from gpuarbiter_server.store.state_directory import sync

# What the sqlite3 module raises for a damaged file: its own errors, and two others where the message holds bytes
# that are no text, and where a length that is damaged asks for more memory than there is.
SQLITE_FAILURES = (sqlite3.Error, UnicodeDecodeError, MemoryError)

NAME = "journal.db"
WAL_SUFFIX = "-wal"
# How long a checkpoint waits for somebody who reads, and a reader for a checkpoint.
_BUSY_SECONDS = 2.0
# A checkpoint each 4 MiB of log; the log file keeps no more than twice that.
_CHECKPOINT_PAGES = 1000
_LOG_BYTES = 8 * 1024**2


def create(path: Path, meta: Meta) -> None:
    """Makes an empty journal. It gets its name once it is whole: no crash leaves a part of one behind.

    Raises:
        OSError, sqlite3.Error: it cannot be made.
    """
    draft = path.with_name(path.name + ".new")
    for leftover in ("", "-journal", WAL_SUFFIX, "-shm"):
        draft.with_name(draft.name + leftover).unlink(missing_ok=True)
    # SQLite gives the files beside it the same mode.
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA.values():
            connection.execute(statement)
        connection.execute(META.put, META.encode(META_ROW, meta))
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
        if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
            raise OSError("a write-ahead log is not possible on this file system")
    draft.rename(path)
    sync(path.parent)


def open_to_read(path: Path) -> sqlite3.Connection:
    """A connection that cannot change anything, even where an arbiter writes at the same time."""
    connection = _connect(path, "ro", ())
    # What is no text any more is to be found out by its checksum, and not to end the reading.
    connection.text_factory = lambda raw: raw.decode(errors="surrogateescape")
    return connection


def open_to_write(path: Path, *, synchronous: str) -> sqlite3.Connection:
    """A connection that writes; there is one alone."""
    settings = (
        f"synchronous = {synchronous}",
        f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
        f"journal_size_limit = {_LOG_BYTES}",
        # VACUUM's copy: elsewhere it would need a second folder with space in it.
        "temp_store = MEMORY",
    )
    return _connect(path, "rw", settings)


def _connect(path: Path, mode: str, settings: Sequence[str]) -> sqlite3.Connection:
    address = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(
        address, uri=True, isolation_level=None, timeout=_BUSY_SECONDS, check_same_thread=False
    )
    # What is damaged is found sooner, and does nothing of its own. None of these reads the file.
    for setting in ("cell_size_check = ON", "trusted_schema = OFF", *settings):
        connection.execute(f"PRAGMA {setting}")
    return connection
