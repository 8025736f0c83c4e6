"""What this start of the arbiter begins with: its epoch, its first fencing token, and what an earlier start left.

Law: a new epoch is durable before anybody can reach the arbiter. Fencing tokens start above all that were
ever reserved, and above the seconds since 1970 × 2^20, so that a state that was wiped or kept in memory
does not repeat them either, as long as fewer than 2^20 leases are granted a second.
"""

import secrets
from dataclasses import dataclass

from gpuarbiter_server.core.events import Recover
from gpuarbiter_server.core.journal import TOKEN_BLOCK
from gpuarbiter_server.store.journal import Journal

_TOKENS_PER_SECOND = 1 << 20


@dataclass(frozen=True, slots=True)
class Beginning:
    """How a start differs from every other."""

    # Counts the starts on the same state; in memory every start is the first.
    epoch: int
    first_token: int
    id_key: bytes
    # None: nothing is kept.
    tokens_until: int | None = None
    recover: Recover | None = None


def in_memory(*, wall: float) -> Beginning:
    """A start that knows nothing of earlier ones. wall: Unix seconds."""
    return Beginning(epoch=1, first_token=int(wall * _TOKENS_PER_SECOND), id_key=secrets.token_bytes(32))


def from_journal(journal: Journal, *, boot_id: str, pid_namespace: int, wall: float) -> Beginning:
    """A start that goes on where the last one ended; writes the new epoch.

    boot_id: names the start of the machine. pid_namespace: inode of ours; 0 where it is not known.
    Raises JournalError when it cannot be written.
    """
    before = journal.loaded
    first_token = max(before.tokens_until + 1, int(wall * _TOKENS_PER_SECOND))
    tokens_until = first_token + TOKEN_BLOCK - 1
    epoch = before.epoch + 1
    journal.begin(epoch=epoch, boot_id=boot_id, pid_namespace=pid_namespace, tokens_until=tokens_until)
    recover = Recover(
        before.saved, same_boot=boot_id == before.boot_id, same_pids=0 != pid_namespace == before.pid_namespace
    )
    return Beginning(epoch, first_token, before.id_key, tokens_until, recover)
