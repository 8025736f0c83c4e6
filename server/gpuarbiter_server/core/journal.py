"""What is to be written to the journal, and what has to wait until it is. Data with hardly any rules.

Changes are numbered; the runtime writes them in their order and says up to which number it has. A lease
is offered to its holder only once it is written. While the journal cannot be written nothing is granted
and nothing saved; when it can be again, it is written anew as a whole.
"""

from gpuarbiter_server.core.leases import Lease
from gpuarbiter_server.core.ledger import Gpu

# Fencing tokens that are reserved at once.
TOKEN_BLOCK = 1 << 16


class Journal:
    """The core's side of the journal."""

    __slots__ = ("enabled", "fault", "gpus", "leases", "number", "offers", "rewritten_by", "tokens_until")

    def __init__(self, *, enabled: bool, tokens_until: int) -> None:
        # False: nothing outlives the arbiter, and nothing waits.
        self.enabled = enabled
        # Up to here fencing tokens are reserved.
        self.tokens_until = tokens_until
        # Why it cannot be written; None while it can.
        self.fault: str | None = None
        # While it is written anew: the number of the change that does it.
        self.rewritten_by: int | None = None
        # Of the last change that was handed out.
        self.number = 0
        # What has changed since.
        self.leases: dict[Lease, None] = {}
        self.gpus: dict[Gpu, None] = {}
        # Leases that are not offered before the change of their number is written; in the order of the numbers.
        self.offers: dict[Lease, int] = {}

    @property
    def open(self) -> bool:
        """Whether changes are taken."""
        return self.enabled and (self.fault is None or self.rewritten_by is not None)
