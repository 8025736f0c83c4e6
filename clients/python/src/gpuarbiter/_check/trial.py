"""The small shared leases that a check takes for a moment."""

from gpuarbiter._errors import ClientLimit, QueueFull, WaitTimeout
from gpuarbiter._outcomes import Declined

TASK = "gpu-arbiter-check"
MEMORY = 64 * 2**20
WAIT_SECONDS = 2.0
# Others use what we would need.
BUSY = (Declined, WaitTimeout, QueueFull, ClientLimit)


def milliseconds(seconds: float) -> str:
    """How long something took, for a line."""
    return f"{seconds * 1000:.0f} ms"
