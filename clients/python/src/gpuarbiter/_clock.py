"""The clock that leases are counted by: seconds that never jump.

It goes on while the machine sleeps where the system has such a clock, because the arbiter's does too: a
holder that slept past its ttl must find its lease gone.
"""

import time

_BOOT_TIME = getattr(time, "CLOCK_BOOTTIME", None)


def now() -> float:
    """Seconds since some fixed moment; comparable only within this machine."""
    return time.monotonic() if _BOOT_TIME is None else time.clock_gettime(_BOOT_TIME)
