"""What this start of the arbiter is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class About:
    """Facts that do not change while it runs."""

    # Changes with every start.
    instance_id: str
    version: str
    # Monotonic seconds.
    started_at: float
    # Counts the starts on the same state; in memory every start is the first.
    epoch: int = 1
