"""What a guard tells of the command."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exited:
    """The command ended, with its exit code, or 128 + the signal that ended it."""

    code: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """The command was stopped by a signal, as by Ctrl-Z."""

    signal: int


@dataclass(frozen=True, slots=True)
class GuardLost:
    """The guard is gone, and the lease with it."""
