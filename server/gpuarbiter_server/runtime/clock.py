"""The two clocks: one that decides, one for people."""

import time


def monotonic() -> float:
    """Seconds that only ever rise; they go on through suspend where the system has such a clock."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


def wall() -> float:
    """Unix time in seconds, for people; decides nothing."""
    return time.time()
