"""A journal before it is opened: made where there is none, refused where something is wrong with it.

Law: nothing that may hold leases is ever overwritten or taken for empty. A refusal says what is wrong and what
to do, and has changed nothing.
"""

import shlex
import sqlite3
from itertools import count
from pathlib import Path
from secrets import token_bytes

from gpuarbiter_server.store.journal_check import Contents, described, read
from gpuarbiter_server.store.journal_file import WAL_SUFFIX, create
from gpuarbiter_server.store.journal_schema import VERSION, Meta
from gpuarbiter_server.store.state_directory import JournalError

_ID_KEY_BYTES = 32
_SHOWN_PROBLEMS = 3


def make_if_missing(path: Path) -> None:
    """Makes an empty journal where there is none.

    Raises:
        JournalError: it cannot be made, or a part of one is there.
    """
    log = path.with_name(path.name + WAL_SUFFIX)
    try:
        if path.exists():
            return
        if log.exists() and log.stat().st_size:
            # SQLite would take it for a part of whatever gets the name.
            raise JournalError(f"{path} is missing, but its log {log.name} is there. {_way_out(path)}")
        create(path, Meta(VERSION, 0, "", 0, token_bytes(_ID_KEY_BYTES).hex(), 0))
    except (OSError, sqlite3.Error) as error:
        raise JournalError(f"the journal {path} cannot be made: {described(error)}") from error


def read_in_order(path: Path) -> Contents:
    """What is in a journal with which nothing is wrong.

    Raises:
        JournalError: something is.
    """
    contents = read(path)
    if not contents.problems:
        return contents
    told = "; ".join(contents.problems[:_SHOWN_PROBLEMS])
    more = len(contents.problems) - _SHOWN_PROBLEMS
    told += f"; and {more} more" if more > 0 else ""
    if contents.version is not None and contents.version > VERSION:
        raise JournalError(f"the journal {path} cannot be used: {told}. Start the newer arbiter. {_way_out(path)}")
    raise JournalError(f"the journal {path} is damaged: {told}. {_way_out(path)}")


def _way_out(path: Path) -> str:
    """What to do about a journal that cannot be used."""
    directory = path.parent
    names = (directory.with_name(f"{directory.name}.damaged{number or ''}") for number in count())
    where, aside = (shlex.quote(str(each)) for each in (directory, next(each for each in names if not each.exists())))
    return (
        "Nothing was changed. What can still be read: "
        f"gpu-arbiterd journal inspect --set journal.path={where}. To start without it: mv {where} {aside} "
        "(leases held now are then forgotten; fencing tokens keep rising)"
    )
