"""Where the arbiter keeps what must outlive it.

Law: nothing here makes or opens anything; the path is the same at each start of the same service.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from gpuarbiter_server.config.problems import ConfigError, Problem

AUTO = "auto"
_NAME = "gpu-arbiter"


def default_state_directory(environ: Mapping[str, str] | None = None) -> Path:
    """The directory of the journal unless configured: systemd's, else by the XDG base directory specification.

    Raises:
        ConfigError: there is no home directory to put it in.
    """
    known = os.environ if environ is None else environ
    # systemd names several with colons between them; the first is the one of the unit's own name.
    given = known.get("STATE_DIRECTORY", "").partition(":")[0]
    if given.startswith("/"):
        return Path(given)
    # The specification: a path that is not absolute is to be ignored.
    state = known.get("XDG_STATE_HOME", "")
    if state.startswith("/"):
        return Path(state, _NAME)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib", _NAME)
    return _home(known) / ".local" / "state" / _NAME


def state_directory(said: str) -> Path:
    """The directory that journal.path comes to."""
    return default_state_directory() if said == AUTO else Path(said)


def _home(environ: Mapping[str, str]) -> Path:
    home = environ.get("HOME", "")
    if home.startswith("/"):
        return Path(home)
    try:
        # Without the variable, from the list of users.
        return Path.home()
    except RuntimeError:
        allowed = "an absolute path: this user has no home directory that auto could take"
        raise ConfigError([Problem("journal.path", AUTO, "auto, by HOME", allowed)]) from None
