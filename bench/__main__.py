"""`make bench`: runs every measurement, prints one table, and writes it to bench/results.md.

--quick only shows that everything runs; its figures mean nothing and are not written. With --only it runs that
module and draws its picture, and does not write the table.
"""

import argparse
import datetime as dt
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

from bench import (
    crowds,
    decisions,
    durability,
    flights,
    gpus,
    handoffs,
    loads,
    locks,
    package,
    pairs,
    pipeline,
    sampling,
    telemetry,
    watchers,
)

# In the order of the table.
_MODULES = {
    module.__name__.removeprefix("bench."): module
    for module in (
        pairs,
        flights,
        loads,
        locks,
        handoffs,
        decisions,
        crowds,
        watchers,
        sampling,
        durability,
        gpus,
        pipeline,
        package,
        telemetry,
    )
}
_RESULTS = Path(__file__).with_name("results.md")
_HEADINGS = ("measure", "floor", "arbiter", "ratio (median of rounds)")


def _machine() -> str:
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} × {model}, Linux {platform.release()}"


def _table(rows: list[tuple[str, ...]]) -> str:
    lines = [_HEADINGS, tuple("---" for _ in _HEADINGS), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", action="append", choices=_MODULES, help="may be said several times")
    options = parser.parse_args()
    rows = []
    for name in options.only or _MODULES:
        began = time.monotonic()
        rows += _MODULES[name].rows(quick=options.quick)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    table = _table(rows)
    print(table)
    if not options.quick and not options.only:
        head = (
            "# Measurements\n\n"
            f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, {_machine()}, CPython {platform.python_version()}, "
            f"grpcio {version('grpcio')}, uvloop {version('uvloop')}; written by `make bench`.\n\n"
            "The floor is a bare grpc.aio + uvloop server that answers the same messages and does nothing else. "
            "CPU is the server process's own, by the scheduler's accounting; times are medians at the Python "
            "client. Rounds are interleaved. Metrics on, one configured exclusive GPU, a journal at full durability "
            "unless a row says otherwise. Telemetry is measured with the journal in memory, so that the disk does not "
            "stand between the figures; what is in process there is CPU of this process. A row with a target says "
            "whether it is met.\n\n"
        )
        _RESULTS.write_text(head + table + "\n")
        print(f"written to {_RESULTS.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
