"""What people do with a journal: look at it, check it, make it smaller.

Law: looking and checking change nothing, and work beside a running arbiter and on a damaged journal.
"""

from dataclasses import dataclass
from pathlib import Path

from gpuarbiter_server.core.records import Saved
from gpuarbiter_server.store import journal_file
from gpuarbiter_server.store.journal import Journal
from gpuarbiter_server.store.journal_check import read
from gpuarbiter_server.store.state_directory import JournalError


@dataclass(frozen=True, slots=True)
class Inspection:
    """What can be read of a journal; None: it cannot."""

    path: Path
    version: int | None
    epoch: int | None
    boot_id: str | None
    pid_namespace: int | None
    tokens_until: int | None
    saved: Saved
    # Bytes by name.
    files: dict[str, int]
    # Empty: it is in order.
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a journal takes on the disk, in bytes."""

    before: int
    after: int


def inspect(directory: Path) -> Inspection:
    """Looks at the journal of a directory."""
    path = _path(directory)
    # Before SQLite makes an empty log.
    files = _files(path)
    contents = read(path)
    meta = contents.meta
    return Inspection(
        path=path,
        version=contents.version,
        epoch=meta.epoch if meta else None,
        boot_id=meta.boot_id if meta else None,
        pid_namespace=meta.pid_namespace if meta else None,
        tokens_until=meta.tokens_until if meta else None,
        saved=contents.saved(),
        files=files,
        problems=tuple(contents.problems),
    )


def verify(directory: Path) -> list[str]:
    """Everything that is wrong with the journal of a directory."""
    return read(_path(directory)).problems


def compact(directory: Path) -> Compaction:
    """Takes out what need not be kept any more, and gives the room back to the disk.

    Raises:
        JournalError: an arbiter uses it, it is damaged, or there is none.
    """
    path = _path(directory)
    before = _files(path)
    if path.name not in before:
        raise JournalError(f"there is no {path}")
    journal = Journal.open(path.parent, durability="full")
    try:
        journal.compact()
    finally:
        journal.close()
    return Compaction(sum(before.values()), sum(_files(path).values()))


def _path(directory: Path) -> Path:
    return directory.absolute() / journal_file.NAME


def _files(path: Path) -> dict[str, int]:
    """The journal and its log; the log's index is no part of it, and made anew at each start."""
    parts = (path, path.with_name(path.name + journal_file.WAL_SUFFIX))
    return {part.name: part.stat().st_size for part in parts if part.exists()}
