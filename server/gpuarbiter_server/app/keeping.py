"""What outlives the arbiter: its journal is opened before anything else, and closed after everything else."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from gpuarbiter_server.app.problems import StartError
from gpuarbiter_server.config import Config
from gpuarbiter_server.gpu import procfs
from gpuarbiter_server.runtime.beginning import Beginning, from_journal, in_memory
from gpuarbiter_server.runtime.clock import wall
from gpuarbiter_server.runtime.threads import within
from gpuarbiter_server.store.journal import Journal, JournalError

_HISTORY = "history.db"
# A disk that hangs does not keep the arbiter from ending.
_LAST_PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class Kept:
    """What this start begins with, and where it writes what is to outlive it; None: nowhere."""

    beginning: Beginning
    journal: Journal | None = None
    history: Path | None = None


def keep(config: Config, stack: contextlib.AsyncExitStack) -> Kept:
    """Opens the journal that is configured, and begins a new epoch in it; StartError when that fails."""
    directory = config.journal.directory()
    if directory is None:
        return Kept(in_memory(wall=wall()))
    try:
        journal = Journal.open(directory, durability=config.journal.durability)
        stack.push_async_callback(_close, journal)
        beginning = from_journal(
            journal, boot_id=procfs.boot_id(), pid_namespace=procfs.own_pid_namespace(), wall=wall()
        )
    except JournalError as error:
        raise StartError(str(error)) from error
    return Kept(beginning, journal, directory / _HISTORY)


async def _close(journal: Journal) -> None:
    with contextlib.suppress(TimeoutError):
        await within(_LAST_PATIENCE, journal.close)
