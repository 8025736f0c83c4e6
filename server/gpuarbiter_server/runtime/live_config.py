"""The configuration in force, and how it changes while the arbiter runs: as a whole, or not at all."""

from collections.abc import Callable
from dataclasses import dataclass

from gpuarbiter_server.config import Config, ConfigError, merge_patch, restart_needed
from gpuarbiter_server.core.events import Configure
from gpuarbiter_server.runtime.runtime import Runtime


class StaleRevisionError(Exception):
    """The configuration has moved on since the caller looked."""


@dataclass(frozen=True, slots=True)
class Update:
    """What an update came to."""

    config: Config
    revision: int
    restart_needed: list[str]


class LiveConfig:
    """Holds the configuration, and counts its changes from 1."""

    def __init__(self, config: Config, runtime: Runtime, *, on_change: Callable[[Config], None]) -> None:
        self.config = config
        self.revision = 1
        self._runtime = runtime
        self._on_change = on_change

    def update(self, patch_yaml: str, *, revision: int | None, dry_run: bool) -> Update:
        """Applies a YAML merge patch (RFC 7386); with dry_run only checks it.

        ConfigError when the result is not valid, StaleRevisionError when `revision` is not the one in force.
        """
        if revision is not None and revision != self.revision:
            raise StaleRevisionError(f"the configuration is at revision {self.revision}, not at {revision}")
        changed = merge_patch(self.config, patch_yaml)
        later = restart_needed(self.config, changed)
        if not dry_run:
            self.config = changed
            self.revision += 1
            self._on_change(changed)
            self._runtime.submit(Configure(changed.settings(), detail=f"revision {self.revision}"))
        return Update(changed, self.revision, later)


__all__ = ["ConfigError", "LiveConfig", "StaleRevisionError", "Update"]
