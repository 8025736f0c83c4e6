"""The configuration in force, and how it changes while the arbiter runs: as a whole, or not at all.

Law: one update at a time. What takes long (reading and writing YAML) happens on a thread, beside the
loop; what takes effect does so in one step on the loop, once all of it is known to be right.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from gpuarbiter_server.config import Config, ConfigError, merge_patch, restart_needed
from gpuarbiter_server.core.events import Configure
from gpuarbiter_server.core.policy import Settings
from gpuarbiter_server.runtime.runtime import Runtime


class StaleRevisionError(Exception):
    """The configuration has moved on since the caller looked."""


@dataclass(frozen=True, slots=True)
class Update:
    """What an update came to."""

    config_yaml: str
    revision: int
    restart_needed: list[str]


class LiveConfig:
    """Holds the configuration, and counts its changes from 1."""

    def __init__(self, config: Config, runtime: Runtime, *, on_change: Callable[[Config], None]) -> None:
        self.config = config
        self.revision = 1
        self._runtime = runtime
        self._on_change = on_change
        self._updating = asyncio.Lock()

    async def shown(self) -> tuple[str, int]:
        """The configuration as YAML, and its revision."""
        revision = self.revision
        return await asyncio.to_thread(self.config.to_yaml), revision

    async def update(self, patch_yaml: str, *, revision: int | None, dry_run: bool) -> Update:
        """Applies a YAML merge patch (RFC 7386); with dry_run only checks it.

        ConfigError when the result is not valid, StaleRevisionError when `revision` is not the one in force.
        """
        async with self._updating:
            if revision is not None and revision != self.revision:
                raise StaleRevisionError(f"the configuration is at revision {self.revision}, not at {revision}")
            changed, settings, config_yaml, later = await asyncio.to_thread(_merged, self.config, patch_yaml)
            if not dry_run and changed != self.config:
                self.config = changed
                self.revision += 1
                self._on_change(changed)
                self._runtime.submit(Configure(settings, detail=f"revision {self.revision}"))
            return Update(config_yaml, self.revision, later)


def _merged(config: Config, patch_yaml: str) -> tuple[Config, Settings, str, list[str]]:
    """What the configuration comes to with a patch, in all its forms."""
    changed = merge_patch(config, patch_yaml)
    return changed, changed.settings(), changed.to_yaml(), restart_needed(config, changed)


__all__ = ["ConfigError", "LiveConfig", "StaleRevisionError", "Update"]
