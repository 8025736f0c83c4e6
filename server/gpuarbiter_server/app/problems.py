"""Why an arbiter cannot start."""


class StartError(Exception):
    """The arbiter cannot start; the message says why and what to do."""
