"""What the disk takes."""

import os
import statistics
import tempfile
import time
from pathlib import Path


def sync_seconds(count: int) -> float:
    """The median time of one fdatasync of a page that was appended."""
    times = []
    with tempfile.TemporaryDirectory() as folder, Path(folder, "probe").open("wb", buffering=0) as probe:
        for _ in range(count):
            probe.write(bytes(4096))
            began = time.perf_counter()
            os.fdatasync(probe.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times)
