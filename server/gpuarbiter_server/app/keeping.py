"""What outlives the arbiter: its journal is opened before anything else, and closed after everything else."""

import contextlib
import logging
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from gpuarbiter_server.app.problems import StartError
from gpuarbiter_server.config import Config
from gpuarbiter_server.gpu import procfs
from gpuarbiter_server.runtime.beginning import Beginning, from_journal, in_memory
from gpuarbiter_server.runtime.clock import wall
from gpuarbiter_server.runtime.threads import within
from gpuarbiter_server.store import admin_token
from gpuarbiter_server.store.journal import Journal, JournalError

log = logging.getLogger(__name__)

_HISTORY = "history.db"
# A disk that hangs does not keep the arbiter from ending.
_LAST_PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class Kept:
    """What this start begins with, and where it writes what is to outlive it; None: nowhere."""

    beginning: Beginning
    # What changes over HTTP need.
    admin_token: str = field(repr=False)
    journal: Journal | None = None
    history: Path | None = None


def keep(config: Config, stack: contextlib.AsyncExitStack) -> Kept:
    """Opens the journal that is configured, and begins a new epoch in it; StartError when that fails."""
    directory = config.journal.directory()
    if directory is None:
        return Kept(in_memory(wall=wall()), _admin_token(config, None))
    try:
        journal = Journal.open(directory, durability=config.journal.durability)
        stack.push_async_callback(_close, journal)
        beginning = from_journal(
            journal, boot_id=procfs.boot_id(), pid_namespace=procfs.own_pid_namespace(), wall=wall()
        )
    except JournalError as error:
        raise StartError(str(error)) from error
    return Kept(beginning, _admin_token(config, directory), journal, directory / _HISTORY)


def _admin_token(config: Config, directory: Path | None) -> str:
    try:
        found = admin_token.find(config.auth.admin_token, directory, os.environ)
    except admin_token.TokenError as error:
        raise StartError(str(error)) from error
    if found is None:
        log.info("nothing can be changed over HTTP: %s", admin_token.NO_PLACE)
    return found or secrets.token_urlsafe()


async def _close(journal: Journal) -> None:
    with contextlib.suppress(TimeoutError):
        await within(_LAST_PATIENCE, journal.close)
