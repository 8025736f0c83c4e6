"""The sampler (P9): what looking at eight GPUs twice a second costs, on a driver library that is a fake.

The fake answers from memory: what is measured is the arbiter's own share. An arbiter whose eight GPUs nobody looks at
is idle beside it.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

from bench.figures import Row, verdict
from bench.servers import arbiter

_TESTS = Path(__file__).parents[1] / "tests"
_GPUS = 8


def rows(*, quick: bool) -> list[Row]:
    """One row."""
    measure = f"P9 Sampler: {_GPUS} GPUs at 2 Hz, CPU of one core"
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        return [(measure, "-", "-", "no C compiler for the fake driver library is installed")]
    # It is the tests' fake, which is no package.
    sys.path.append(str(_TESTS))
    from fakes.nvml import FakeNvml

    seconds = 1.0 if quick else 15.0
    unseen = ", ".join(f"{{key: 'gpu:{number}', memory: 24GiB}}" for number in range(_GPUS))
    with tempfile.TemporaryDirectory() as folder:
        fake = FakeNvml(Path(folder), gpus=_GPUS)
        for number in range(_GPUS):
            fake.allocate(number, 1, 2 << 30)
        with (
            arbiter(f"gpus=[{unseen}]") as idle,
            arbiter("gpus=auto", "sampler.interval=500ms", environment=fake.env) as sampling,
        ):
            # What is done once: NVML's start, the names of the GPUs.
            time.sleep(seconds / 5)
            before, began = [server.cpu_seconds() for server in (idle, sampling)], time.monotonic()
            time.sleep(seconds)
            took = time.monotonic() - began
            spent = [
                (server.cpu_seconds() - then) / took for server, then in zip((idle, sampling), before, strict=True)
            ]
    share = spent[1] - spent[0]
    return [
        (
            measure,
            f"idle: {spent[0]:.2%}",
            f"{spent[1]:.2%}",
            f"{share:.2%} more; " + verdict("at most 1 %", passed=share <= 0.01),
        )
    ]
