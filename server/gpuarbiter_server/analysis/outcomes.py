"""What can become of asking a model about a GPU."""

from enum import Enum


class Outcome(Enum):
    """Each GPU that was to be asked about counts once."""

    # A valid answer that is sure enough.
    OK = "ok"
    # A valid answer that is less sure than it must be.
    UNSURE = "unsure"
    # An earlier answer counts.
    CACHED = "cached"
    # What came is no valid answer.
    MALFORMED = "malformed"
    # Nothing came in time.
    TIMEOUT = "timeout"
    # The server says that it is asked too often.
    RATE_LIMITED = "rate_limited"
    # Not asked: a limit of ours is reached, or the server is left alone for a while.
    REFUSED = "refused"
    # No connection, or another answer than 200.
    ERROR = "error"


class NoAnswerError(Exception):
    """The model gave no answer that counts; says why, for people. wait: seconds for which its server wants peace."""

    def __init__(self, outcome: Outcome, why: str, *, wait: float = 0.0) -> None:
        super().__init__(why)
        self.outcome = outcome
        self.wait = wait
