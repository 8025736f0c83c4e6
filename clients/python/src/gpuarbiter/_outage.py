"""Whether to go on while the arbiter is out of reach, and the word about it in the log.

Law: proceeding without an arbiter is never silent, and never noisy: one warning when an outage begins, one line
when it is over, however many requests fall into it.
"""

import logging
import threading

from gpuarbiter._errors import ArbiterUnavailable
from gpuarbiter._settings import OnUnavailable

logger = logging.getLogger("gpuarbiter")


class Outage:
    """What one client knows of the arbiter's absence."""

    def __init__(self, on_unavailable: OnUnavailable) -> None:
        self.proceeds = on_unavailable == "proceed"
        self._lock = threading.Lock()
        self._lasts = False

    def noticed(self, failure: ArbiterUnavailable) -> None:
        """A request goes on without a lease."""
        with self._lock:
            begins, self._lasts = not self._lasts, True
        if begins:
            logger.warning("going on WITHOUT leases, since the arbiter is unavailable: %s", failure)

    def over(self) -> None:
        """The arbiter answered."""
        with self._lock:
            ends, self._lasts = self._lasts, False
        if ends:
            logger.warning("the arbiter is back: leases are asked for again")
